"""Builds a ``llama-server`` that takes its speculative decoding from each request: llama.cpp's source out of a pinned
source package, with the patch in ``patches/``. What it builds stays in the user's cache.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from paceline.engines import package_archive

PACKAGE, VERSION = "llama-cpp-python", "0.3.36"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
LLAMA_CPP = "b11434"
"""The build of llama.cpp whose source the package holds; the patch was tried on it."""
PATCH = Path(__file__).parent / "patches" / "llama.cpp-speculation-per-request.patch"
DRY_RUN = Path(__file__).with_name("llama_cpp_dry_run.cpp")
"""The program that says what a command line of the server's would take of each device."""
DRY_RUN_TARGET, DRY_RUN_PLACE = "llama-fit-params", Path("tools", "fit-params", "fit-params.cpp")
"""The program of llama.cpp's that it is built in place of: CMake knows already what that is linked with."""
OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    "BUILD_SHARED_LIBS": "OFF",
    "GGML_NATIVE": "ON",
    "LLAMA_BUILD_NUMBER": LLAMA_CPP.removeprefix("b"),
    "LLAMA_BUILD_COMMIT": "paceline",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_APP": "OFF",
    "LLAMA_BUILD_UI": "OFF",
    "LLAMA_USE_PREBUILT_UI": "OFF",
    "LLAMA_OPENSSL": "OFF",
}
CPU = "cpu"
BACKENDS = {
    CPU: {},
    "cuda": {"GGML_CUDA": "ON"},
    "vulkan": {"GGML_VULKAN": "ON"},
    "metal": {"GGML_METAL": "ON"},
    "hip": {"GGML_HIP": "ON"},
}
"""What CMake is told beside :data:`OPTIONS`."""
WITHOUT_AMX = "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"
CPU_INFO = Path("/proc/cpuinfo")
MIN_SHARE = 0.02
"""Done before that, nothing can be said of the time left."""
MAX_LAST_LINES = 15
"""Of what a program said before it failed, in the message."""
_PROGRESS = re.compile(r"^\[\s*(\d+)(?:/(\d+)|%)\]")


def processor_options(cpu_info: Path = CPU_INFO) -> dict[str, str]:
    """What CMake is told of the processor. Virtual machines say that they have AMX and can't run it: a server that was
    built for it ended with an illegal instruction at its first token, so nobody's is."""
    try:
        has_amx = "amx_tile" in cpu_info.read_text("utf-8", "replace")
    except OSError:
        has_amx = False
    return {"CMAKE_C_FLAGS": WITHOUT_AMX, "CMAKE_CXX_FLAGS": WITHOUT_AMX} if has_amx else {}


class CannotBuild(Exception):
    """The server can't be built; the message says what is missing or went wrong, and where to read more."""


class Build(Struct, frozen=True):
    """A server in the cache."""

    key: str
    """Of source, patch, options and backend."""
    server: str
    """Path of the ``llama-server``."""
    backend: str
    llama_cpp: str
    built_at_s: float
    """Seconds since 1970."""
    dry_run: str = ""
    """Path of the program for dry runs (``planning/dry_run.py``); empty in what earlier versions built."""


class Progress(Struct, frozen=True):
    """How far a build is."""

    step: str
    """``download``, ``configure`` or ``compile``."""
    share: float = 0.0
    """Of the step, from 0 to 1."""
    left_s: float | None = None
    """Seconds until the step is done, as far as can be told."""


Report = Callable[[Progress], None]


def build(cache: Path, backend: str = CPU, jobs: int | None = None, report: Report = lambda _: None) -> Build:
    """The server for a backend; built if it is not in the cache yet, which takes minutes.

    Args:
        cache: Paceline's folder in the user's cache.
        jobs: compilers at once; by default one per processor.

    Raises:
        CannotBuild: a program is missing, the source can't be had, the patch does not fit, or the compiler failed.
    """
    key = _key(backend)
    for built in builds(cache):
        if built.key == key:
            return built
    cmake = _program("cmake", "install CMake, or `pip install 'paceline[build]'`")
    git = _program("git", "install git, which applies the patch")
    folder = _folder(cache, key)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    log = folder / "build.log"
    with tempfile.TemporaryDirectory(prefix="paceline-build-") as scratch:
        report(Progress("download"))
        source = patched_source(Path(scratch), log, git)
        shutil.copy2(DRY_RUN, source / DRY_RUN_PLACE)
        report(Progress("configure"))
        target = Path(scratch) / "build"
        told = OPTIONS | BACKENDS[backend] | processor_options()
        options = [f"-D{name}={value}" for name, value in told.items()]
        ninja = _path_of("ninja")
        generator = ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"] if ninja else []
        _run([cmake, "-S", str(source), "-B", str(target), *generator, *options], log)
        number = str(jobs or os.cpu_count() or 1)
        targets = ["llama-server", DRY_RUN_TARGET]
        for progress in _compiling([cmake, "--build", str(target), "--target", *targets, "-j", number], log):
            report(progress)
        server, dry_run = folder / "llama-server", folder / "llama-dry-run"
        shutil.copy2(target / "bin" / "llama-server", server)
        shutil.copy2(target / "bin" / DRY_RUN_TARGET, dry_run)
    built = Build(
        key=key,
        server=str(server),
        backend=backend,
        llama_cpp=LLAMA_CPP,
        built_at_s=time.time(),
        dry_run=str(dry_run),
    )
    (folder / "build.json").write_bytes(msgspec.json.encode(built))
    return built


def builds(cache: Path) -> list[Build]:
    """What is in the cache, the latest first."""
    existing = []
    for file in (cache / "engines").glob("*/build.json"):
        try:
            build = msgspec.json.decode(file.read_bytes(), type=Build)
        except (OSError, msgspec.MsgspecError):
            continue
        if Path(build.server).is_file():
            existing.append(build)
    return sorted(existing, key=lambda build: -build.built_at_s)


def usable(cache: Path) -> Build | None:
    """The latest server in the cache that was built with this version's patch."""
    keys = {_key(backend) for backend in BACKENDS}
    return next((built for built in builds(cache) if built.key in keys), None)


def remove(cache: Path, key: str) -> None:
    """Remove a server from the cache."""
    shutil.rmtree(_folder(cache, key))


def patched_source(folder: Path, log: Path, git: str = "git") -> Path:
    """Where in this folder llama.cpp's source now lies: out of the package, with the patch.

    Raises:
        CannotBuild: it can't be had, or the patch does not fit.
    """
    source = _unpacked(_downloaded(folder, log), folder)
    apply_patch(source, git)
    return source


def apply_patch(source: Path, git: str = "git") -> None:
    """Apply the patch to llama.cpp's source.

    Raises:
        CannotBuild: it does not fit; nothing was changed.
    """
    # Without a repository of its own, git would look for one above and leave out what lies outside of it.
    environment = os.environ | {"GIT_CEILING_DIRECTORIES": str(source.parent)}
    done = subprocess.run(
        [git, "apply", "--verbose", str(PATCH)],
        cwd=source,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise CannotBuild(
            f"the patch does not fit the source in {source}; it was made for llama.cpp {LLAMA_CPP}, as in "
            f"{PACKAGE} {VERSION}:\n{done.stderr.strip()}"
        )


def _key(backend: str) -> str:
    sources = [PATCH.read_text("utf-8"), DRY_RUN.read_text("utf-8")]
    inputs = [PACKAGE, VERSION, SHA256, *sources, OPTIONS, backend, BACKENDS[backend]]
    if processor := processor_options():
        inputs.append(processor)
    return f"llama.cpp-{LLAMA_CPP}-{backend}-{hashlib.sha256(msgspec.json.encode(inputs)).hexdigest()[:10]}"


def _folder(cache: Path, key: str) -> Path:
    return cache / "engines" / key


def _path_of(name: str) -> str | None:
    """The path of a program, which may be one that came with a Python package."""
    return shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))


def _program(name: str, advice: str) -> str:
    path = _path_of(name)
    if path is None:
        raise CannotBuild(f"there is no program {name!r}: {advice}")
    return path


def _downloaded(folder: Path, log: Path) -> Path:
    """The source package, checked against its hash. None of its code is run for that."""
    file = f"{PACKAGE.replace('-', '_')}-{VERSION}.tar.gz"
    with log.open("a", encoding="utf-8") as log_file:
        log_file.write(f"\nfetching {file}\n")
        try:
            return package_archive.fetch(PACKAGE, file, SHA256, folder)
        except package_archive.NotFetched as error:
            log_file.write(f"{error}\n")
            raise CannotBuild(str(error)) from error


def _unpacked(package: Path, folder: Path) -> Path:
    with tarfile.open(package) as archive:
        archive.extractall(folder, filter="data")
    source = next(folder.glob("*/vendor/llama.cpp"))
    (source / ".git").unlink(missing_ok=True)  # names a repository that is not here
    return source


def _run(command: Sequence[str], log: Path) -> None:
    for _ in _output(command, log):
        pass


def _compiling(command: Sequence[str], log: Path) -> Iterator[Progress]:
    """Runs the build; how far it is follows from what Ninja or Make print, the time left from the time so far."""
    began_s = time.monotonic()
    for line in _output(command, log):
        if progress := _PROGRESS.match(line):
            share = int(progress[1]) / int(progress[2] or 100)
            took_s = time.monotonic() - began_s
            yield Progress("compile", share, took_s * (1 - share) / share if share > MIN_SHARE else None)


def _output(command: Sequence[str], log: Path) -> Iterator[str]:
    """Runs a program; yields its lines, which also go to a file.

    Raises:
        CannotBuild: it failed; with the last lines it said.
    """
    last: deque[str] = deque(maxlen=MAX_LAST_LINES)
    with log.open("a", encoding="utf-8", buffering=1) as file:
        file.write(f"\n$ {' '.join(command)}\n")
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                file.write(line)
                last.append(line)
                yield line
            status = process.wait()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if status:
        raise CannotBuild(
            f"{Path(command[0]).name} failed (status {status}); all it said is in {log}:\n{''.join(last).rstrip()}"
        )
