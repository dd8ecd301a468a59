"""Models' files in the folders where programs usually put them."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from msgspec import Struct

from paceline.planning.gguf import PART

MAX_DEPTH = 6
"""Folders below one another; a hub's cache has five."""
MAX_ENTRIES = 20_000
"""Looked at in all, so that a home with millions of files is not walked through."""
MAX_FILES = 50
MIN_BYTES = 20_000_000
"""A smaller one is no language model, but an adapter or a vocabulary."""
NOT_MODELS = re.compile(r"mmproj|[-_.]lora|vocab|imatrix|draft|eagle", re.IGNORECASE)
"""In names of files that go with a model."""


class ModelFile(Struct, frozen=True, kw_only=True):
    """A file in GGUF format, of a split one its first part."""

    path: Path
    size_bytes: int
    changed_s: float

    def __str__(self) -> str:
        return f"{self.path} ({self.size_bytes / 1e9:.1f} GB)"


def usual_folders(home: Path, environment: Mapping[str, str]) -> list[Path]:
    """Of llama.cpp, the Hugging Face hub, LM Studio and people; those that are named by variables first."""
    cache = Path(environment.get("XDG_CACHE_HOME") or home / ".cache")
    named = [environment.get(name) for name in ("LLAMA_CACHE", "HF_HUB_CACHE")]
    if hub := environment.get("HF_HOME"):
        named.append(f"{hub}/hub")
    return [
        *(Path(folder) for folder in named if folder),
        Path.cwd(),
        Path.cwd() / "models",
        home / "models",
        home / "Models",
        cache / "llama.cpp",
        cache / "huggingface" / "hub",
        cache / "lm-studio" / "models",
        home / ".lmstudio" / "models",
        home / "Library" / "Caches" / "llama.cpp",
    ]


def model_files(folders: list[Path]) -> list[ModelFile]:
    """Those in these folders and below, the last changed first."""
    found: dict[Path, ModelFile] = {}
    left = [MAX_ENTRIES]
    for folder in folders:
        is_here = folder == Path.cwd()  # in which whole projects may lie
        for path in _ggufs(folder, 0 if is_here else MAX_DEPTH, left):
            try:
                real, status = path.resolve(), path.stat()
            except OSError:
                continue
            if status.st_size >= MIN_BYTES:
                found.setdefault(
                    real, ModelFile(path=path.absolute(), size_bytes=status.st_size, changed_s=status.st_mtime)
                )
    return sorted(found.values(), key=lambda file: -file.changed_s)[:MAX_FILES]


def _ggufs(folder: Path, depth: int, left: list[int]) -> Iterator[Path]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        left[0] -= 1
        if left[0] < 0:
            return
        if entry.name.lower().endswith(".gguf"):
            part = PART.search(entry.name)
            is_later_part = part is not None and int(part[1]) > 1
            if not NOT_MODELS.search(entry.name) and not is_later_part:
                yield Path(entry.path)
        elif depth and not entry.is_symlink() and entry.is_dir():
            yield from _ggufs(Path(entry.path), depth - 1, left)
