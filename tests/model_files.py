"""Small model files that tests write."""

import struct
from collections.abc import Sequence
from pathlib import Path

from paceline.planning.gguf import Tensor

STRING, ARRAY, UINT32, FLOAT32, BOOL, UINT64 = 8, 9, 4, 6, 7, 10
F32 = 0


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def pair(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def strings(key: str, values: Sequence[str]) -> bytes:
    return pair(key, ARRAY, struct.pack("<IQ", STRING, len(values)) + b"".join(map(text, values)))


def model_file(
    path: Path, pairs: Sequence[bytes] = (), tensors: Sequence[Tensor] = (), data: bytes = b"", version: int = 3
) -> Path:
    infos = b"".join(
        text(one.name)
        + struct.pack("<I", len(one.shape))
        + b"".join(struct.pack("<Q", length) for length in one.shape)
        + struct.pack("<IQ", one.type, one.offset_bytes)
        for one in tensors
    )
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(pairs)) + b"".join(pairs) + infos
    path.write_bytes(head + bytes(-len(head) % 32) + data)
    return path


def small_model(path: Path, rows: int = 64) -> Path:
    pairs = (
        pair("general.architecture", STRING, text("llama")),
        pair("llama.context_length", UINT32, struct.pack("<I", 8192)),
        pair("llama.rope.freq_base", FLOAT32, struct.pack("<f", 0.5)),
        pair("tokenizer.ggml.add_bos_token", BOOL, b"\1"),
        pair("tokenizer.ggml.model", STRING, text("gpt2")),
        strings("tokenizer.ggml.tokens", ["a", "bc", "ü"]),
        pair("tokenizer.ggml.scores", ARRAY, struct.pack("<IQ3f", FLOAT32, 3, 1, 2, 3)),
        pair("nested", ARRAY, struct.pack("<IQ", ARRAY, 1) + struct.pack("<IQ2I", UINT32, 2, 1, 2)),
    )
    return model_file(path, pairs, [Tensor("output.weight", (4, rows), F32, 0)], bytes(16 * rows))
