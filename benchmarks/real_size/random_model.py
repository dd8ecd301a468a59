"""Models of real shapes with random weights: their text means nothing, and each of their steps costs what it costs."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from msgspec import Struct

from benchmarks.real_size.shapes import Shape, metadata, tensors

MAX_RANDOM_BLOCKS = 200_000
"""Made anew; the rest of a tensor repeats them."""
SCALES = {"Q4_K": ((0, 1e-4), (2, 7e-4)), "Q6_K": ((208, 1e-5),), "Q8_0": ((0, 3e-4),), "Q4_0": ((0, 4e-3),)}
"""By type: where a block has its numbers of 16 bits, in bytes, and what they are: without them a random block may hold
infinities (ggml-common.h)."""
DEVIATION = 0.05
"""Of weights that are no blocks."""


class Place(Struct, frozen=True):
    """Where a tensor's bytes lie in a file."""

    name: str
    type: str
    at: int
    size_bytes: int


class Hollow(Struct, frozen=True):
    """A model's file up to its weights, and where they belong."""

    head: bytes
    places: list[Place]

    @property
    def size_bytes(self) -> int:
        """Of the whole file."""
        return max(place.at + place.size_bytes for place in self.places)


def hollow(shape: Shape, tokenizer_of: Path, scratch: Path) -> Hollow:
    """Lay out a model's file.

    Args:
        tokenizer_of: a model whose tokenizer it borrows; its vocabulary is filled up with tokens that nobody uses.
        scratch: a folder for a file that is removed again.
    """
    from gguf import GGMLQuantizationType, GGUFWriter

    logging.getLogger("gguf").setLevel(logging.ERROR)
    file = scratch / "hollow.gguf"
    writer: Any = GGUFWriter(file, shape.architecture)
    for key, value in metadata(shape).items():
        name = f"{shape.architecture}.{key}"
        if isinstance(value, list):
            writer.add_array(name, value)
        elif isinstance(value, float):
            writer.add_float32(name, value)
        else:
            writer.add_uint32(name, value)
    _borrow_tokenizer(writer, tokenizer_of, shape.vocabulary)
    wanted = list(tensors(shape))
    for tensor in wanted:
        kind = GGMLQuantizationType[_fitting(tensor.type, tensor.dimensions[0])]
        size = _size_bytes(tensor.dimensions, kind)
        writer.add_tensor_info(tensor.name, tensor.dimensions[::-1], np.dtype(np.float16), size, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    head = file.read_bytes()
    file.unlink()
    alignment: int = writer.data_alignment
    head += bytes(-len(head) % alignment)
    places, at = [], len(head)
    for tensor in wanted:
        kind = GGMLQuantizationType[_fitting(tensor.type, tensor.dimensions[0])]
        size = _size_bytes(tensor.dimensions, kind)
        places.append(Place(tensor.name, kind.name, at, size))
        at += size + -size % alignment
    return Hollow(head, places)


def fill(model: Hollow, target: Path, seed: int = 0) -> None:
    """Write the file, with random weights; some seconds for 20 GB where memory takes it."""
    random = np.random.default_rng(seed)
    patterns: dict[str, bytes] = {}
    with target.open("wb") as file:
        file.write(model.head)
        for place in model.places:
            file.seek(place.at)
            if place.type in ("F16", "F32"):
                _write_numbers(file, place, random)
                continue
            if place.type not in patterns:
                patterns[place.type] = _blocks(place.type, random)
            for part in _repeated(patterns[place.type], place.size_bytes):
                file.write(part)
        file.truncate(model.size_bytes)


def _borrow_tokenizer(writer: Any, source: Path, vocabulary: int) -> None:
    from gguf import GGUFReader, GGUFValueType, TokenType

    for field in GGUFReader(source).fields.values():
        if not field.name.startswith("tokenizer."):
            continue
        value = field.contents()
        of_array = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
        if field.name.endswith(".tokens"):
            value = [*value, *(f"<unused {number}>" for number in range(len(value), vocabulary))]
        elif field.name.endswith((".token_type", ".scores")):
            filler = int(TokenType.UNUSED) if field.name.endswith("type") else 0
            value = [*value, *[filler] * (vocabulary - len(value))]
        writer.add_key_value(field.name, value, field.types[0], sub_type=of_array)


def _fitting(kind: str, row: int) -> str:
    """The type that ``llama-quantize`` takes instead where a row is no whole number of blocks."""
    if kind in ("F16", "F32"):
        return kind
    if row % 32:
        return "F16"
    return "Q8_0" if kind.endswith("_K") and row % 256 else kind


def _size_bytes(dimensions: tuple[int, ...], kind: Any) -> int:
    from gguf import GGML_QUANT_SIZES

    values, size = GGML_QUANT_SIZES[kind]
    return int(np.prod(dimensions, dtype=np.int64)) // values * size


def _write_numbers(file: BinaryIO, place: Place, random: np.random.Generator) -> None:
    kind = np.float32 if place.type == "F32" else np.float16
    count = place.size_bytes // np.dtype(kind).itemsize
    if place.name.endswith("norm.weight"):
        numbers = np.ones(count)
    elif place.name.endswith("ssm_a"):
        numbers = -np.ones(count)  # the state has to fade
    else:
        numbers = random.normal(0, DEVIATION, count)
    file.write(numbers.astype(kind).tobytes())


def _blocks(kind: str, random: np.random.Generator) -> bytes:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]][1]
    blocks = random.integers(0, 256, (MAX_RANDOM_BLOCKS, size), dtype=np.uint8)
    for at, scale in SCALES[kind]:
        blocks[:, at : at + 2] = np.frombuffer(np.float16(scale).tobytes(), np.uint8)
    return blocks.tobytes()


def _repeated(pattern: bytes, size_bytes: int) -> Iterator[bytes]:
    while size_bytes > 0:
        yield pattern[:size_bytes]
        size_bytes -= len(pattern)
