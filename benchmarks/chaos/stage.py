"""The gateway, its two engines, and what can be done to them."""

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks.chaos import ill_engine
from benchmarks.chaos.ill_engine import TOKEN_S
from benchmarks.gateway_lanes import lanes
from paceline.bench.own_gateway import Running, own_gateway
from paceline.processes.launch import free_port
from paceline.wire.client import Client, ConnectFailed, ConnectionLost

TIMES = """
first_byte_timeout_s = 2
idle_timeout_s = 2
connect_timeout_s = 1
queue_timeout_s = 10
total_timeout_s = 15
health_interval_s = 0.5
"""
"""Far less than the defaults, so that an hour of illness fits into minutes."""
STATE_BYTES = 64 * 1024 * 1024
UP_WITHIN_S = 30.0
LAUNCH = (sys.executable, str(Path(ill_engine.__file__)), "--port", "{port}")


class Stage:
    """Two engines that serve the same model: ``remote`` runs by itself, ``launched`` is the gateway's own. Each has a
    number behind its name, so that it can be made a new one.

    Args:
        state: the gateway's state directory.
        may_be_full: whether it is on a small file system of its own, that can be filled.
    """

    def __init__(self, file: Path, state: Path, remote_port: int, may_be_full: bool) -> None:
        self.may_be_full = may_be_full
        self.state = state
        self.remote, self.launched = "remote-0", "launched-0"
        self.more = ""
        """Further tables of the configuration."""
        self.remote_url = f"http://127.0.0.1:{remote_port}"
        self._file = file
        self._remote = Client(self.remote_url)
        self._numbers = 0
        self.write()

    def runs(self, running: Running) -> None:
        """The gateway has come up."""
        self._gateway = Client(running.url)
        self.process = psutil.Process(running.pid)

    def write(self) -> None:
        """The configuration as it is to be now."""
        launch = json.dumps(LAUNCH)
        self._file.write_text(
            f"[server]{TIMES}"
            f'[[engine]]\nname = "{self.remote}"\nkind = "openai"\nurl = "{self.remote_url}"\n'
            f'[[engine]]\nname = "{self.launched}"\nkind = "openai"\nlaunch = {launch}\n{self.more}'
        )

    def broken_write(self) -> None:
        """A configuration with an error."""
        self._file.write_text(self._file.read_text() + '[[engine]]\nname = "no kind"\n')

    def renew(self) -> None:
        """Rename both, so that nothing is known of them."""
        self._numbers += 1
        self.remote, self.launched = f"remote-{self._numbers}", f"launched-{self._numbers}"
        self.write()

    async def reload(self) -> int:
        """Have the gateway take the configuration up. Returns the status that it answers with."""
        status, _ = await self._gateway.fetch("POST", "/paceline/reload", timeout_s=30)
        return status

    async def fall_ill(self, illness: str | None) -> None:
        """Give ``remote`` an illness, or take it away."""
        await self._tell({"ill": illness})

    async def prefer(self, launched: bool) -> None:
        """Have ``remote`` be so slow, or so fast, that this one of the two is the better choice."""
        await self._tell({"token_s": TOKEN_S * 2 if launched else TOKEN_S / 2})

    async def _tell(self, what: dict[str, Any]) -> None:
        await self._remote.fetch("POST", "/chaos", [(b"content-type", b"application/json")], json.dumps(what).encode())

    async def reached(self) -> int:
        """Clients' requests that have reached ``remote`` so far."""
        _, answer = await self._remote.fetch("GET", "/chaos")
        return int(json.loads(answer)["reached"])

    async def lanes(self) -> dict[str, Any]:
        """The gateway's word on all lanes."""
        return await lanes(self._gateway)

    async def pid(self, name: str) -> int | None:
        """Of a launched engine, if it is up."""
        for lane in (await self.lanes())["lanes"]:
            if lane["lane"] == name and lane["health"] == "up":
                return int(lane["engine"]["pid"])
        return None

    async def is_well(self, name: str) -> bool:
        """Whether the gateway takes an engine for well."""
        up = any(lane["lane"] == name and lane["health"] == "up" for lane in (await self.lanes())["lanes"])
        return up and not await self._metric(rf'paceline_engine_ejected{{engine="{name}"}}')

    async def failures(self, name: str) -> int:
        """Requests that an engine has failed, as the gateway counts."""
        return int(await self._metric(rf'paceline_engine_failures_total{{engine="{name}",kind="\w+"}}'))

    async def until_well(self, name: str) -> None:
        """Wait for an engine.

        Raises:
            TimeoutError: it does not come up.
        """
        async with asyncio.timeout(UP_WITHIN_S):
            while not await self.is_well(name):
                await asyncio.sleep(0.05)

    async def signal(self, number: signal.Signals) -> bool:
        """Send ``launched`` a signal, if it is up. Returns whether it was."""
        if (pid := await self.pid(self.launched)) is None:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        return True

    @contextmanager
    def full_disk(self) -> Iterator[None]:
        """No byte is left for the state directory."""
        filler = self.state / "filler"
        try:
            with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while file.write(b"\0" * 65536):
                    pass
            with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
                while file.write(b"\0"):
                    pass
            yield
        finally:
            filler.unlink()

    async def _metric(self, pattern: str) -> float:
        _, text = await self._gateway.fetch("GET", "/metrics")
        return sum(float(value) for value in re.findall(rf"^{pattern} (\S+)$", text.decode(), re.MULTILINE))

    def close(self) -> None:
        self._remote.close()
        self._gateway.close()


@contextmanager
def stage(folder: Path) -> Iterator[tuple[Stage, Running, Path]]:
    """A stage, the gateway on it, and the file of the gateway's log."""
    port = free_port()
    engine = subprocess.Popen([*LAUNCH[:-1], str(port)], stdout=subprocess.DEVNULL)
    state = folder / "state"
    state.mkdir()
    may_be_full = _mount(state)
    try:
        built = Stage(folder / "paceline.toml", state, port, may_be_full)
        with own_gateway(["--config", str(folder / "paceline.toml")], folder, state) as running:
            built.runs(running)
            yield built, running, next(folder.glob("gateway-*.log"))
    finally:
        engine.kill()
        engine.wait()
        if may_be_full:
            subprocess.run(["umount", str(state)], check=False)


def _mount(state: Path) -> bool:
    """A small file system of its own, where that is allowed."""
    if shutil.which("mount") is None or not hasattr(os, "geteuid") or os.geteuid() != 0:
        return False
    command = ["mount", "-t", "tmpfs", "-o", f"size={STATE_BYTES}", "tmpfs", str(state)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


UNREACHABLE = (ConnectFailed, ConnectionLost, TimeoutError)
