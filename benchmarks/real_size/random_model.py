"""Models of real shapes with random weights: their text means nothing, and each of their steps costs what it costs."""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.real_size.filling import Hollow, Place
from benchmarks.real_size.shapes import Shape, metadata, tensors


def hollow(shape: Shape, tokenizer_of: Path, scratch: Path) -> Hollow:
    """Lay out a model's file.

    Args:
        tokenizer_of: a model whose tokenizer it borrows; its vocabulary is filled up with tokens that nobody uses.
        scratch: a folder for a file that is removed again.
    """
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter

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
        places.append(Place(tensor.name, kind.name, at, size, GGML_QUANT_SIZES[kind][1]))
        at += size + -size % alignment
    return Hollow(head, places)


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
