"""A ``llama-server`` of its own, without a gateway."""

import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx2

from paceline.engines.llama_cpp_build import usable
from paceline.paths import cache_directory
from paceline.processes.launch import free_port


def built_server() -> str:
    """The llama-server that ``paceline engine build`` made.

    Raises:
        SystemExit: nothing is built.
    """
    built = usable(cache_directory())
    if built is None:
        raise SystemExit("nothing is built; run `paceline engine build`")
    return built.server


class LlamaServer:
    """Started with a model; answers when the constructor returns.

    Raises:
        SystemExit: it did not come up; with the end of its log.
    """

    def __init__(
        self,
        program: str,
        model: Path,
        *flags: str,
        start_timeout_s: float = 120,
        host: str = "127.0.0.1",
        port: int | None = None,
    ) -> None:
        port = port or free_port()
        self.address = f"{host}:{port}"
        self._log = tempfile.NamedTemporaryFile(prefix="llama-server-", suffix=".log")  # noqa: SIM115 - closed in stop()
        words = (
            "--model",
            str(model),
            "--alias",
            "smol",
            "--host",
            host,
            "--port",
            str(port),
            "--ctx-size",
            "8192",
            "--metrics",
        )
        self.process = subprocess.Popen([program, *words, *flags], stdout=self._log, stderr=self._log)
        # llama-server closes a connection after a streamed answer without saying so: none is used twice.
        once = httpx2.Limits(max_keepalive_connections=0)
        self.http = httpx2.Client(base_url=f"http://{self.address}", timeout=300, trust_env=False, limits=once)
        deadline_s = time.monotonic() + start_timeout_s
        while not self._is_up():
            if self.process.poll() is not None or time.monotonic() > deadline_s:
                raise SystemExit(f"{program} did not come up:\n{Path(self._log.name).read_text()[-3000:]}")
            time.sleep(0.1)

    def post(self, path: str, body: dict[str, Any], status: int = 200) -> Any:
        answer = self.http.post(path, json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    def chat(self, text: str, **fields: Any) -> tuple[str, dict[str, Any]]:
        """The text and the timings of an answer of 64 tokens at temperature 0, for which nothing was cached."""
        asked = {"messages": [{"role": "user", "content": text}], "max_tokens": 64, "temperature": 0}
        answer = self.post("/v1/chat/completions", asked | {"cache_prompt": False} | fields)
        return answer["choices"][0]["message"]["content"], answer["timings"]

    def log(self) -> str:
        """All it has printed."""
        return Path(self._log.name).read_text("utf-8", "replace")

    def memory_bytes(self) -> int:
        """Its share of physical memory, pages that several processes map counted in part (Linux)."""
        for line in Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return 1024 * int(line.split()[1])
        return 0

    def stop(self) -> None:
        self.http.close()
        self.process.terminate()
        self.process.wait(20)
        self._log.close()

    def _is_up(self) -> bool:
        try:
            return self.http.get("/health").status_code == 200
        except httpx2.TransportError:
            return False
