"""Checks the container files without a container engine.

    sudo .venv/bin/python scripts/check_container.py --root DEBIAN

Runs the steps of deploy/container/Dockerfile in copies of a Debian, each step as in the container: below the copy, as
the user that is meant, with the variables that are set. Then it starts what the image starts, with an engine-less
configuration, and runs its health check. A Debian with Python is made by

    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm DEBIAN

whose Python 3.11 stands in for the image's.
"""

import argparse
import json
import os
import pwd
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
DOCKERFILE = CHECKOUT / "deploy" / "container" / "Dockerfile"
CONFIGURATION = """
[server]
api_keys = ["check"]
[[engine]]
name = "nobody"
kind = "llama.cpp"
url = "http://127.0.0.1:9"
"""
START_TIMEOUT_S = 60.0


class Stage:
    """One image under way.

    Args:
        root: its file system.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = "/"
        self.user = "root"
        self.variables = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": "/root"}
        self.entry: list[str] = []
        self.command: list[str] = []
        self.health: list[str] = []

    def start(self, words: list[str], more: Mapping[str, str]) -> "subprocess.Popen[bytes]":
        """Start a program in it."""
        change = [
            shutil.which("chroot") or "chroot",
            f"--userspec={self.user}" if self.user != "root" else "--userspec=0:0",
            str(self.root),
        ]
        shell = f"cd {shlex.quote(self.folder)} && exec {shlex.join(words)}"
        return subprocess.Popen([*change, "/bin/sh", "-c", shell], env={**self.variables, **more})

    def run(self, words: list[str], more: Mapping[str, str]) -> None:
        """Run a program in it to its end."""
        if status := self.start(words, more).wait():
            sys.exit(f"{shlex.join(words)} ended with {status}")

    def path(self, inside: str) -> Path:
        """Where something of it is here."""
        return self.root / str(Path(self.folder) / inside).lstrip("/")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="a Debian with Python, which is copied")
    parser.add_argument(
        "--copy", action="append", default=[], metavar="PATH", help="of this machine, as a package index's settings"
    )
    options = parser.parse_args()
    pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    with tempfile.TemporaryDirectory(prefix="container-") as name:
        stage = built(options.root, Path(name), options.copy, pip)
        print(f"/opt/paceline has {_megabytes(stage.path('/opt/paceline')):.0f} MB")
        check_start(stage)
    print("the image starts as its user, is healthy, and ends in good order")


def built(base: Path, folder: Path, copied: list[str], pip: Mapping[str, str]) -> Stage:
    """The last stage, with all steps done."""
    stages: dict[str, Stage] = {}
    stage = Stage(folder)
    for number, (word, rest) in enumerate(_steps()):
        print(f"step {number}: {word} {rest}"[:150], flush=True)
        if word == "FROM":
            stage = Stage(folder / str(number))
            subprocess.run(["cp", "-a", str(base), str(stage.root)], check=True)
            (stage.root / "usr/bin/python").symlink_to("python3")
            for path in copied:
                subprocess.run(["cp", "-a", "--parents", path, str(stage.root)], check=True)
            stages[rest.rpartition(" ")[2]] = stage
        elif word == "COPY":
            *sources, target = [each for each in rest.split() if not each.startswith("--")]
            from_stage = re.match(r"--from=(\S+)", rest)
            for source in sources:
                here = stages[from_stage[1]].path(source) if from_stage else CHECKOUT / source
                to = stage.path(target)
                to = to / here.name if target.endswith("/") else to
                to.parent.mkdir(parents=True, exist_ok=True)
                subprocess.run(["cp", "-aT", str(here), str(to)], check=True)
        elif word == "RUN":
            stage.run(["/bin/sh", "-c", rest], pip)
        elif word == "ENV":
            for name, value in (pair.split("=", 1) for pair in rest.split()):
                stage.variables[name] = value.replace("$PATH", stage.variables["PATH"])
        elif word == "WORKDIR":
            stage.folder = rest
            stage.path(".").mkdir(parents=True, exist_ok=True)
        elif word == "USER":
            stage.user = rest
        elif word == "ENTRYPOINT":
            stage.entry = json.loads(rest)
        elif word == "CMD":
            stage.command = json.loads(rest)
        elif word == "HEALTHCHECK":
            stage.health = json.loads(rest.partition("CMD ")[2])
        elif word not in ("ARG", "VOLUME", "EXPOSE", "STOPSIGNAL"):
            sys.exit(f"{word} is not known here")
    return stage


def check_start(stage: Stage) -> None:
    """Start what the image starts, until it is healthy, and end it."""
    configuration = stage.path("/etc/paceline/paceline.toml")
    configuration.parent.mkdir(parents=True, exist_ok=True)
    configuration.write_text(CONFIGURATION)
    process = stage.start([*stage.entry, *stage.command], {})
    try:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while stage.start(stage.health, {}).wait():
            if time.monotonic() > deadline_s or process.poll() is not None:
                sys.exit("it does not become healthy")
            time.sleep(0.5)
        owner = Path(f"/proc/{process.pid}").stat().st_uid
        entries = [line.split(":") for line in stage.path("/etc/passwd").read_text().splitlines()]
        wanted = next(int(entry[2]) for entry in entries if entry[0] == stage.user)
        if owner != wanted or owner == pwd.getpwnam("root").pw_uid:
            sys.exit(f"it runs as user {owner}, and not as {wanted}")
        process.terminate()
        if status := process.wait(30):
            sys.exit(f"it ended with {status}")
    finally:
        process.kill()


def _steps() -> Iterator[tuple[str, str]]:
    text = re.sub(r"\\\n", " ", DOCKERFILE.read_text("utf-8"))
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            word, _, rest = line.partition(" ")
            yield word, rest.strip()


def _megabytes(folder: Path) -> float:
    return sum(path.lstat().st_size for path in folder.rglob("*")) / 1e6


if __name__ == "__main__":
    if shutil.which("chroot") is None or os.geteuid():
        sys.exit("this changes the root directory, and has to be run as root")
    main()
