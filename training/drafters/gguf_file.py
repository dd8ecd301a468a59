"""Reading and writing model files. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md"""

import logging
from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import Any, NamedTuple

import numpy
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, dequantize, quantize

logging.getLogger("gguf").setLevel(logging.ERROR)


class Tensor(NamedTuple):
    """``data`` as it stands in the file: rows are outputs."""

    data: Any
    type: GGMLQuantizationType

    @property
    def values(self) -> Any:
        """As float32."""
        return dequantize(self.data, self.type)

    def rows(self, order: Any) -> "Tensor":
        return Tensor(self.data[order], self.type)


class ModelFile:
    """A model that is read."""

    def __init__(self, path: Path) -> None:
        reader: Any = GGUFReader(path)
        self.fields = {name: field for name, field in reader.fields.items() if not name.startswith("GGUF.")}
        self.tensors = {one.name: Tensor(one.data, one.tensor_type) for one in reader.tensors}
        self.architecture: str = self.fields["general.architecture"].contents()

    def number(self, key: str) -> Any:
        """Of a key of its architecture."""
        return self.fields[f"{self.architecture}.{key}"].contents()


def converted(model: ModelFile, kind: GGMLQuantizationType) -> ModelFile:
    """The model with its matrices in another type."""
    vectors = (GGMLQuantizationType.F32, kind)
    tensors = {
        name: one if one.type in vectors else Tensor(quantize(one.values, kind), kind)
        for name, one in model.tensors.items()
    }
    other = copy(model)
    other.tensors = tensors
    return other


def write(
    path: Path,
    architecture: str,
    like: ModelFile,
    keys: Mapping[str, int | float | bool | list[int]],
    tensors: Mapping[str, Tensor],
    more: Mapping[str, int] | None = None,
) -> None:
    """A file of another architecture with the tokenizer and the dimensions of ``like``.

    Args:
        keys: of the architecture, in place of those of the same name in ``like``.
        more: keys that belong to no architecture.
    """
    writer: Any = GGUFWriter(path, architecture)
    for name, field in like.fields.items():
        own = name.removeprefix(f"{like.architecture}.")
        if name == "general.architecture" or (own != name and own in keys):
            continue
        of_array = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
        key = f"{architecture}.{own}" if own != name else name
        writer.add_key_value(key, field.contents(), field.types[0], sub_type=of_array)
    for name, value in keys.items():
        key = f"{architecture}.{name}"
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        else:
            writer.add_array(key, value)
    for name, number in (more or {}).items():
        writer.add_uint32(name, number)
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor.data, raw_dtype=tensor.type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def matrix(values: Any) -> Tensor:
    """In Q8_0."""
    kind = GGMLQuantizationType.Q8_0
    return Tensor(quantize(numpy.ascontiguousarray(values, numpy.float32), kind), kind)


def vector(values: Any) -> Tensor:
    return Tensor(numpy.asarray(values, numpy.float32), GGMLQuantizationType.F32)
