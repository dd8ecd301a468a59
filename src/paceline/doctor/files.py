"""Looks at Paceline's files: who may write and read them, whether there is room, and whether they are whole."""

import os
import shutil
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from paceline.doctor.finding import Finding, fault, fine, note, warning
from paceline.doctor.scene import Scene, quoted
from paceline.paths import DECISION_LOG, KNOWLEDGE, LEDGER

MB = 1_000_000
LEAST_FREE_BYTES = 100 * MB
"""Below this, nothing is written for long."""
MIN_FREE_INODES = 100
FUTURE_S = 300.0
"""By which a time may be ahead before the clock is suspected."""
_DAMAGED = "damaged"


def folders_can_be_used(scene: Scene) -> Iterator[Finding]:
    """Those of what is kept, and of what can be made again."""
    for name, folder in (("state", scene.state), ("cache", scene.cache)):
        about = f"{name} folder"
        existing = _existing(folder)
        if not existing.is_dir():
            yield fault(
                "not-a-folder",
                about,
                f"{existing} is in the way of {folder}: it is a file.",
                f"mv {quoted(existing)} {quoted(f'{existing}.old')}",
            )
        elif not _may(existing, os.W_OK | os.X_OK):
            yield fault(
                "folder-not-writable",
                about,
                f"{folder} can't be written: {existing} is {_owner(existing)}'s, with mode "
                f"{stat.S_IMODE(existing.stat().st_mode):03o}.",
                f"{_taken_over(folder, existing)}; or set XDG_{name.upper()}_HOME to a folder of yours",
            )
        elif name == "state" and existing == folder and stat.S_IMODE(folder.stat().st_mode) & 0o077:
            yield warning(
                "folder-readable",
                about,
                f"Other users may look into {folder}, which tells what was asked when.",
                f"chmod 700 {quoted(folder)}",
            )
        else:
            yield fine(about, f"{folder} can be written.")


def there_is_room(scene: Scene) -> Iterator[Finding]:
    """On the disks of both folders."""
    want_bytes = LEAST_FREE_BYTES
    if scene.configuration.evidence.log:
        log = scene.state / DECISION_LOG
        want_bytes += max(
            0, scene.configuration.evidence.max_mb * MB - (os.path.getsize(log) if os.path.isfile(log) else 0)
        )
    free = shutil.disk_usage(_existing(scene.state)).free
    inodes = os.statvfs(_existing(scene.state)).f_favail if hasattr(os, "statvfs") else MIN_FREE_INODES
    about = "disk"
    place = scene.place("evidence", "max_mb")
    if free < LEAST_FREE_BYTES:
        yield fault(
            "disk-full",
            about,
            f"The disk of {scene.state} has {free / MB:.0f} MB left: what is learned and logged gets lost.",
            f"free some space: du -xsh {quoted(scene.state)} {quoted(scene.cache)}; paceline engine remove all removes "
            "built engines",
        )
    elif inodes < MIN_FREE_INODES:
        yield fault(
            "disk-full",
            about,
            f"The disk of {scene.state} has room for {inodes} more files.",
            f"remove files that are not needed: df -i {quoted(_existing(scene.state))}",
        )
    elif free < want_bytes:
        yield warning(
            "disk-scarce",
            about,
            f"The disk of {scene.state} has {free / MB:.0f} MB left, and the decision log alone may grow to "
            f"{scene.configuration.evidence.max_mb} MB.",
            f"free some space, or write a smaller evidence.max_mb into {place}",
        )
    else:
        yield fine(about, f"{free / 1e9:.0f} GB are free for {scene.state}.")


def databases_are_whole(scene: Scene) -> Iterator[Finding]:
    """What was learned, logged and spent."""
    for name in (KNOWLEDGE, DECISION_LOG, LEDGER):
        file = scene.state / name
        if not os.path.exists(file):
            continue
        if not _may(file, os.R_OK | os.W_OK):
            yield fault(
                "file-not-writable",
                name,
                f"{file} is {_owner(file)}'s, and can't be read and written.",
                f"sudo chown $USER {quoted(file)}",
            )
            continue
        problem = _problem(file)
        if problem and "locked" in problem:
            yield note("file-locked", name, f"{file} is in use by another program: {problem}.")
        elif problem and "unable to open" in problem:
            yield fault(
                "file-not-readable",
                name,
                f"{file} can't be read: {problem}.",
                f"see what it is, and whose: ls -ld {quoted(file)} {quoted(file.parent)}",
            )
        elif problem:
            yield fault(
                "file-damaged",
                name,
                f"{file} is damaged: {problem}. A gateway sets it aside at its start, and begins a new one.",
                f"mv {quoted(file)} {quoted(f'{file}.damaged')}",
            )
    aside = sorted(scene.state.glob(f"*.{_DAMAGED}*")) if os.path.isdir(scene.state) else []
    if aside:
        yield note(
            "files-set-aside",
            "state folder",
            f"Damaged files were set aside: {', '.join(path.name for path in aside)}.",
            f"rm {' '.join(map(quoted, aside))}, when nobody wants to look into them",
        )


def log_is_not_from_the_future(scene: Scene) -> Iterator[Finding]:
    """Entries that are later than now tell that the clock was, or is, wrong."""
    file = scene.state / DECISION_LOG
    try:
        with closing(_opened(file)) as connection:
            (last_s,) = connection.execute("SELECT max(at_s) FROM entries").fetchone()
    except (sqlite3.Error, TypeError):
        return
    if last_s is not None and last_s > time.time() + FUTURE_S:
        ahead_h = (last_s - time.time()) / 3600
        yield warning(
            "clock-behind",
            "clock",
            f"The last entry of the decision log is {ahead_h:.1f} hours ahead of the clock, which is behind, or was "
            "ahead.",
            "sudo timedatectl set-ntp true; then compare: date -u",
        )


def _opened(file: Path) -> sqlite3.Connection:
    """
    Raises:
        sqlite3.Error: it can't be opened.
    """
    return sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=1.0)


def _problem(file: Path) -> str | None:
    try:
        with closing(_opened(file)) as connection:
            (said,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except (sqlite3.Error, TypeError) as error:
        return str(error)
    return None if said == "ok" else str(said)


def _taken_over(folder: Path, existing: Path) -> str:
    """The command that gives a folder to the user; those above it stay as they are."""
    if existing == folder:
        return f"sudo chown -R $USER {quoted(folder)} && chmod -R u+rwX {quoted(folder)}"
    return f"sudo install -d -m 700 -o $USER {quoted(folder)}"


def _may(path: Path, mode: int) -> bool:
    """Whether this process may use it so."""
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def _existing(path: Path) -> Path:
    """The path, or the nearest one above it that there is, as far as one may see."""
    return next((folder for folder in (path, *path.parents) if os.path.exists(folder)), Path("/"))


def _owner(path: Path) -> str:
    try:
        return path.owner()
    except (KeyError, OSError, NotImplementedError):
        return "another user"
