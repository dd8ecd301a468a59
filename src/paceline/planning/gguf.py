"""Reads the header of a model file: what the model is, without its vocabulary and weights.

Vocabularies of 262,000 words are walked over, not kept: the header of such a file is read in a tenth of a second and
within two megabytes. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import re
import struct
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct

Scalar = int | float | bool | str

MAGIC = b"GGUF"
VERSIONS = (2, 3)
"""Version 1 had counts of 32 bits; nothing has written it since August 2023."""
STRING, ARRAY = 8, 9
"""As in :data:`SCALAR_FORMATS`."""
SCALAR_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""By the numbers of ``gguf_metadata_value_type``, as :mod:`struct` has them; all are little-endian."""
# fmt: off
TYPE_SIZES = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 40),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292),
    16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82),
    23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2),
    34: (256, 54), 35: (256, 66), 39: (32, 17), 40: (64, 36), 41: (128, 18),
}
# fmt: on
"""By the numbers of ``ggml_type``: values of a block, and its bytes (ggml.h; gguf-py's ``GGML_QUANT_SIZES``)."""
DEFAULT_ALIGNMENT = 32
"""Bytes: the format's, where a file names none."""
BLOCK_BYTES = 1 << 20
"""Read at once."""
MAX_STRING_BYTES = 1 << 20
"""A longer value is left out; the longest in use are chat templates of some 20 kB."""
MAX_NAME_BYTES = 1 << 16
"""Of keys and tensors, as the format has it."""
MAX_ENTRIES = 1 << 18
"""Keys, and tensors: the largest models have some 100 and 3,000."""
MAX_ARRAY_DEPTH = 4
"""Arrays within arrays: llama.cpp itself reads none."""
MAX_KEPT_NUMBERS = 1024
"""Longer arrays of numbers are walked over, as those of texts are: those by layer are shorter (llama.cpp has a limit of
512 layers), and those by token are not."""
MAX_DIMENSIONS = 8
"""ggml itself has four."""
PART = re.compile(r"-(\d{5})-of-(\d{5})(?=\.gguf$)")
"""Ends the name of one part of a model: how llama.cpp's gguf-split names them."""


class BadModelFile(Exception):
    """A file that can't be served as a model; ``str()`` names it, and says what is wrong with it."""


class Tensor(Struct, frozen=True):
    name: str
    shape: tuple[int, ...]
    """The innermost dimension first."""
    type: int
    offset_bytes: int
    """From where the tensors begin."""

    @property
    def size_bytes(self) -> int | None:
        """``None`` for a type that is not known here."""
        if self.type not in TYPE_SIZES:
            return None
        values, size = 1, TYPE_SIZES[self.type]
        for length in self.shape:
            values *= length
        return -(-values // size[0]) * size[1]


class Header(Struct, frozen=True, dict=True):
    """What stands before the weights.

    Args:
        metadata: scalars and strings by their keys.
        lengths: of the arrays, by their keys.
        arrays: the items of those that are short and of numbers, by their keys; what else is in arrays is not read.
        data_start: where the tensors begin, in bytes from the file's start.
    """

    path: Path
    metadata: Mapping[str, Scalar]
    lengths: Mapping[str, int]
    arrays: Mapping[str, tuple[int | float, ...]]
    tensors: tuple[Tensor, ...]
    data_start: int
    file_bytes: int

    @cached_property
    def tensor_bytes(self) -> int:
        """Of all weights in this file."""
        return sum(tensor.size_bytes or 0 for tensor in self.tensors)

    @cached_property
    def whole_bytes(self) -> int:
        """What the file has to have at least."""
        ends = (tensor.offset_bytes + (tensor.size_bytes or 0) for tensor in self.tensors)
        return self.data_start + max(ends, default=0)

    @property
    def architecture(self) -> str:
        return self.text("general.architecture")

    def text(self, key: str) -> str:
        """A string; empty where there is none."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else ""

    def number(self, key: str) -> int:
        """A whole number; 0 where there is none."""
        value = self.metadata.get(key)
        return int(value) if isinstance(value, int) else 0

    def own_number(self, key: str) -> int:
        """A whole number among the keys of the model's architecture; 0 where there is none."""
        return self.number(f"{self.architecture}.{key}")

    def own_numbers(self, key: str) -> tuple[int, ...]:
        """Whole numbers among the keys of the model's architecture, one a layer; empty where there is no such array."""
        return tuple(int(number) for number in self.arrays.get(f"{self.architecture}.{key}", ()))


def read_model(path: Path) -> tuple[Header, ...]:
    """The headers of a model's file, or of all parts of one that is split.

    Raises:
        BadModelFile: it is no model, is cut short, or a part is missing.
    """
    parts = _parts(path)
    headers = tuple(read_header(part) for part in parts)
    for header in headers:
        if header.file_bytes < header.whole_bytes:
            there, whole = _megabytes(header.file_bytes), _megabytes(header.whole_bytes)
            raise BadModelFile(f"{header.path} is cut short: {there} of {whole} MB are there; download it again")
    count = headers[0].number("split.count")
    if count > len(headers):
        raise BadModelFile(
            f"{path} is one of {count} parts of a model, and its name does not tell which: it has to end in "
            f"-00001-of-{count:05d}.gguf, as the others do"
        )
    return headers


def read_header(path: Path) -> Header:
    """Read what stands before the weights of one file; whether the weights are all there is not looked at.

    Raises:
        BadModelFile: it can't be read, or is no model.
    """
    if path.is_dir():
        raise BadModelFile(f"{path} is a directory; name the model's file in it, which ends in .gguf")
    try:
        with path.open("rb", buffering=0) as file:
            return _read(path, _Reader(path, file, path.stat().st_size))
    except FileNotFoundError:
        raise BadModelFile(f"there is no file {path}") from None
    except OSError as error:
        raise BadModelFile(f"{path} can't be read: {error.strerror or error}") from error


def _parts(path: Path) -> list[Path]:
    """
    Raises:
        BadModelFile: it is not the first part, or another one is missing.
    """
    part_of = PART.search(path.name)
    if part_of is None:
        return [path]
    number, count = int(part_of[1]), int(part_of[2])
    if not 1 <= number <= count:
        return [path]
    parts = [path.with_name(PART.sub(f"-{part:05d}-of-{count:05d}", path.name)) for part in range(1, count + 1)]
    if missing := [part.name for part in parts if not part.is_file()]:
        raise BadModelFile(f"{path} is one of {count} parts of a model, and {_listed(missing)} is not beside it")
    if number != 1:
        raise BadModelFile(f"{path} is part {number} of {count} of a model; name the first, {parts[0].name}")
    return parts


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _megabytes(size_bytes: int) -> str:
    """With as many digits as tell a file that lacks little from a whole one."""
    return f"{size_bytes / 1e6:.0f}" if size_bytes % 1_000_000 == 0 else f"{size_bytes / 1e6:.1f}"


class _Reader:
    """Walks through a file, a block in memory at a time."""

    def __init__(self, path: Path, file: BinaryIO, size_bytes: int) -> None:
        self.path = path
        self.size_bytes = size_bytes
        self.at = 0
        self._file = file
        self._block = b""
        self._block_at = 0

    def take(self, count: int) -> bytes:
        start = self.at - self._block_at
        if not 0 <= start <= len(self._block) - count:
            self._fill(count)
            start = 0
        self.at += count
        return self._block[start : start + count]

    def number(self, form: str) -> int:
        value: int = struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))[0]
        return value

    def string(self, max_bytes: int) -> bytes | None:
        """``None`` for one that is longer."""
        length = self.number("Q")
        if length > max_bytes:
            self.skip(length)
            return None
        return self.take(length)

    def name(self) -> str:
        name = self.string(MAX_NAME_BYTES)
        if name is None:
            raise self.damaged()
        return name.decode("utf-8", "replace")

    def skip(self, count: int) -> None:
        if count > self.size_bytes - self.at:
            raise self.too_short()
        self.at += count

    def skip_strings(self, count: int) -> None:
        """Over strings, each with its length of eight bytes before it."""
        length_at = struct.Struct("<Q").unpack_from
        while count:
            self.take(8)  # have them in the block
            self.at -= 8
            block, at = self._block, self.at - self._block_at
            start, last = at, len(self._block) - 8
            while count and at <= last:
                at += 8 + length_at(block, at)[0]
                count -= 1
            self.skip(at - start)

    def too_short(self) -> BadModelFile:
        return BadModelFile(
            f"{self.path} is cut short: it ends within its header, after {self.size_bytes:,} bytes; download it again"
        )

    def damaged(self) -> BadModelFile:
        return BadModelFile(f"{self.path} is damaged: what stands at byte {self.at} can't be; download it again")

    def _fill(self, count: int) -> None:
        if count > self.size_bytes - self.at:
            raise self.too_short()
        self._file.seek(self.at)
        wanted = min(max(count, BLOCK_BYTES), self.size_bytes - self.at)
        block = b""
        while len(block) < wanted and (more := self._file.read(wanted - len(block))):
            block += more
        if len(block) < count:
            raise self.too_short()
        self._block, self._block_at = block, self.at


def _read(path: Path, reader: _Reader) -> Header:
    # 1. That it is a model, and how many keys and tensors it has.
    _check_version(path, reader)
    tensor_count, key_count = reader.number("Q"), reader.number("Q")
    if max(tensor_count, key_count) > MAX_ENTRIES:
        raise reader.damaged()
    # 2. The keys.
    metadata: dict[str, Scalar] = {}
    lengths: dict[str, int] = {}
    arrays: dict[str, tuple[int | float, ...]] = {}
    for _ in range(key_count):
        key, kind = reader.name(), reader.number("I")
        if kind == ARRAY:
            lengths[key], numbers = _array(reader)
            if numbers:
                arrays[key] = numbers
        elif (value := _scalar(reader, kind)) is not None:
            metadata[key] = value
    # 3. The tensors, and where their bytes begin.
    tensors = tuple(_tensor(reader) for _ in range(tensor_count))
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1:
        raise reader.damaged()
    return Header(
        path=path,
        metadata=metadata,
        lengths=lengths,
        arrays=arrays,
        tensors=tensors,
        data_start=-(-reader.at // alignment) * alignment,
        file_bytes=reader.size_bytes,
    )


def _check_version(path: Path, reader: _Reader) -> None:
    if reader.size_bytes == 0:
        raise BadModelFile(f"{path} is empty")
    if reader.size_bytes < 8 or reader.take(4) != MAGIC:
        raise BadModelFile(f"{path} is no model in the GGUF format, which llama.cpp needs")
    version = reader.number("I")
    if version not in VERSIONS:
        if version & 0xFFFF == 0:
            raise BadModelFile(f"{path} is a big-endian GGUF file; llama.cpp needs a little-endian one here")
        raise BadModelFile(f"{path} is GGUF version {version}; known are {' and '.join(map(str, VERSIONS))}")


def _scalar(reader: _Reader, kind: int) -> Scalar | None:
    """A key's value; ``None`` for a text that is too long to be kept."""
    if kind == STRING:
        text = reader.string(MAX_STRING_BYTES)
        return None if text is None else text.decode("utf-8", "replace")
    if kind not in SCALAR_FORMATS:
        raise reader.damaged()
    return reader.number(SCALAR_FORMATS[kind])


def _array(reader: _Reader, depth: int = 1) -> tuple[int, tuple[int | float, ...]]:
    """Its length, and its items where they are few and numbers."""
    kind, length = reader.number("I"), reader.number("Q")
    if kind == STRING:
        reader.skip_strings(length)
    elif kind == ARRAY:
        if depth == MAX_ARRAY_DEPTH or length > MAX_ENTRIES:
            raise reader.damaged()
        for _ in range(length):
            _array(reader, depth + 1)
    elif kind not in SCALAR_FORMATS:
        raise reader.damaged()
    elif length <= MAX_KEPT_NUMBERS:
        form = f"<{length}{SCALAR_FORMATS[kind]}"
        return length, struct.unpack(form, reader.take(struct.calcsize(form)))
    else:
        reader.skip(length * struct.calcsize("<" + SCALAR_FORMATS[kind]))
    return length, ()


def _tensor(reader: _Reader) -> Tensor:
    name, dimensions = reader.name(), reader.number("I")
    if dimensions > MAX_DIMENSIONS:
        raise reader.damaged()
    shape = tuple(reader.number("Q") for _ in range(dimensions))
    return Tensor(name, shape, reader.number("I"), reader.number("Q"))
