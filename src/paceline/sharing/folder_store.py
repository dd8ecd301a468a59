"""A folder as a store, also on a network's file system: files are written under another name and then renamed, so that
nobody reads half of one, and there are no locks. Ages are by the file server's clock alone."""

import contextlib
import os
import secrets
import struct
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from paceline.sharing.stores import KEPT_DELTAS, KEPT_S, NAME, News

LOG, ONCE, NEW = "log", "once", "new"
"""Folders: of deltas, of documents that are the same for all, and of files under way."""
LEFT_BEHIND_S = 3_600.0
"""A file under way that is so old was left by a router that ended."""
CLEANED_EVERY = 64
"""Appended deltas between two looks for old files."""


class FolderStore:
    """
    Args:
        folder: made when it is first written to.
    """

    def __init__(self, folder: Path, group: str) -> None:
        self._folder = folder / group
        self._appended = 0
        self._now_s = 0.0
        """By the file server's clock, when this last wrote."""

    def append(self, router: str, sequence: int, delta: bytes) -> None:
        self._put(self._folder / LOG / f"{_name(router)}.{sequence}", delta)
        with contextlib.suppress(FileNotFoundError):
            (self._folder / LOG / f"{router}.{sequence - KEPT_DELTAS}").unlink()
        if self._appended % CLEANED_EVERY == 0:
            self._clean()
        self._appended += 1

    def since(self, known: Mapping[str, int]) -> News:
        found: dict[str, list[int]] = defaultdict(list)
        for entry in _entries(self._folder / LOG):
            router, _, digits = entry.name.rpartition(".")
            if digits.isdecimal() and NAME.fullmatch(router) and int(digits) > known.get(router, 0):
                found[router].append(int(digits))
        deltas: list[bytes] = []
        cut_off: set[str] = set()
        for router, numbers in found.items():
            expected = known.get(router, 0) + 1
            for number in sorted(numbers):
                try:
                    deltas.append((self._folder / LOG / f"{router}.{number}").read_bytes())
                except FileNotFoundError:
                    continue
                if number != expected:
                    cut_off.add(router)
                expected = number + 1
        return News(deltas, frozenset(cut_off))

    def write(self, kind: str, router: str, document: bytes, lifetime_s: float) -> None:
        self._put(self._folder / _name(kind) / _name(router), struct.pack("<d", lifetime_s) + document)

    def read(self, kind: str) -> Mapping[str, bytes]:
        documents = {}
        for entry in _entries(self._folder / _name(kind)):
            try:
                content, written_s = Path(entry.path).read_bytes(), entry.stat().st_mtime
            except FileNotFoundError:
                continue
            if len(content) < 8:
                continue
            (lifetime_s,) = struct.unpack_from("<d", content)
            if self._now_s - written_s <= lifetime_s:
                documents[entry.name] = content[8:]
        return documents

    def once(self, name: str, document: bytes) -> bytes:
        path = self._folder / ONCE / _name(name)
        with contextlib.suppress(FileNotFoundError):
            return path.read_bytes()
        with self._under_way(document) as new, contextlib.suppress(FileExistsError):
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(new, path)  # which never replaces another's
        return path.read_bytes()

    def close(self) -> None:
        pass

    def _put(self, path: Path, content: bytes) -> None:
        with self._under_way(content) as new:
            path.parent.mkdir(parents=True, exist_ok=True)
            new.replace(path)

    @contextlib.contextmanager
    def _under_way(self, content: bytes) -> Iterator[Path]:
        """A file with that content, for its owner only, which is gone afterwards."""
        folder = self._folder / NEW
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = folder / secrets.token_hex(8)
        try:
            with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(content)
                file.flush()
                self._now_s = os.fstat(file.fileno()).st_mtime
            yield new
        finally:
            new.unlink(missing_ok=True)

    def _clean(self) -> None:
        """Remove what is too old for anybody."""
        for folder, lifetime_s in ((LOG, KEPT_S), (NEW, LEFT_BEHIND_S)):
            for entry in _entries(self._folder / folder):
                with contextlib.suppress(FileNotFoundError):
                    if self._now_s - entry.stat().st_mtime > lifetime_s:
                        os.unlink(entry.path)
        for folder in _entries_of_documents(self._folder):
            living = self.read(folder)
            for entry in _entries(self._folder / folder):
                if entry.name not in living:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(entry.path)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []


def _entries_of_documents(folder: Path) -> list[str]:
    """Kinds of documents that there are."""
    return [entry.name for entry in _entries(folder) if entry.name not in (LOG, ONCE, NEW)]


def _name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name for a file")
    return name
