"""Reads what tensors stand in safetensors files: names, types and sizes, without their bytes.

Format: https://huggingface.co/docs/safetensors/index
"""

import json
from pathlib import Path
from typing import Any

from msgspec import Struct

MAX_HEADER_BYTES = 100_000_000
"""As the format has it."""
LENGTH_BYTES = 8


class BadTensors(Exception):
    """Files that can't be read as a model's weights; ``str()`` says which, and what is wrong with it."""


class StoredTensor(Struct, frozen=True):
    name: str
    dtype: str
    """As the format has it: ``BF16``, ``F8_E4M3``, ``U8``."""
    size_bytes: int


def read_tensors(folder: Path) -> tuple[StoredTensor, ...]:
    """All tensors of a folder's ``*.safetensors``; what stands twice (a whole file beside its parts) counts once.

    Raises:
        BadTensors: there is none, one is damaged or cut short, or a part that the index names is missing.
    """
    paths = _files(folder)
    found: dict[str, StoredTensor] = {}
    for path in paths:
        for tensor in read_header(path):
            found.setdefault(tensor.name, tensor)
    return tuple(found.values())


def read_header(path: Path) -> list[StoredTensor]:
    """
    Raises:
        BadTensors: it is damaged, cut short or can't be read.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(LENGTH_BYTES), "little")
            if not 2 <= length <= min(MAX_HEADER_BYTES, size - LENGTH_BYTES):
                raise BadTensors(f"{path} is no safetensors file, or is cut short: download it again")
            document = json.loads(file.read(length))
    except OSError as error:
        raise BadTensors(f"{path} can't be read: {error.strerror or error}") from error
    except ValueError as error:
        raise BadTensors(f"{path} is damaged: its header is no JSON") from error
    if not isinstance(document, dict):
        raise BadTensors(f"{path} is damaged: its header lists no tensors")
    tensors, end = [], 0
    for name, entry in document.items():
        if name == "__metadata__":
            continue
        begin, end_of_this = _offsets(path, name, entry)
        tensors.append(StoredTensor(name, str(entry.get("dtype", "")), end_of_this - begin))
        end = max(end, end_of_this)
    if LENGTH_BYTES + length + end > size:
        raise BadTensors(f"{path} is cut short: {size:,} of {LENGTH_BYTES + length + end:,} bytes are there")
    return tensors


def _offsets(path: Path, name: str, entry: Any) -> tuple[int, int]:
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if isinstance(offsets, list) and len(offsets) == 2 and all(isinstance(value, int) for value in offsets):
        begin, end = offsets
        if 0 <= begin <= end:
            return begin, end
    raise BadTensors(f"{path} is damaged: nothing tells where {name!r} is")


def _files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            names = sorted({str(name) for name in json.loads(index.read_bytes())["weight_map"].values()})
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise BadTensors(f"{index} is damaged: it names no files") from error
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise BadTensors(f"{folder} lacks {missing[0]}{more}, of {len(names)} files: download it again")
        return [folder / name for name in names]
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise BadTensors(f"{folder} has no *.safetensors")
    return paths
