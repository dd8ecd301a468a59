"""Fills a model's file up with random weights. Needs NumPy alone, so that it also runs where the GPU is."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

MAX_RANDOM_BLOCKS = 200_000
"""Made anew; the rest of a tensor repeats them."""
SCALES = {"Q4_K": ((0, 1e-4), (2, 7e-4)), "Q6_K": ((208, 1e-5),), "Q8_0": ((0, 3e-4),), "Q4_0": ((0, 4e-3),)}
"""By type: where a block has its numbers of 16 bits, in bytes, and what they are: without them a random block may hold
infinities (ggml-common.h)."""
DEVIATION = 0.05
"""Of weights that are no blocks."""


class Place(NamedTuple):
    """Where a tensor's bytes lie in a file."""

    name: str
    type: str
    at: int
    size_bytes: int
    block_bytes: int
    """Of the type's smallest unit: a block, or a number."""


class Hollow(NamedTuple):
    """A model's file up to its weights, and where they belong."""

    head: bytes
    places: list[Place]

    @property
    def size_bytes(self) -> int:
        """Of the whole file."""
        return max(place.at + place.size_bytes for place in self.places)


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
                patterns[place.type] = _blocks(place.type, place.block_bytes, random)
            for part in _repeated(patterns[place.type], place.size_bytes):
                file.write(part)
        file.truncate(model.size_bytes)


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


def _blocks(kind: str, size: int, random: np.random.Generator) -> bytes:
    blocks = random.integers(0, 256, (MAX_RANDOM_BLOCKS, size), dtype=np.uint8)
    for at, scale in SCALES[kind]:
        blocks[:, at : at + 2] = np.frombuffer(np.float16(scale).tobytes(), np.uint8)
    return blocks.tobytes()


def _repeated(pattern: bytes, size_bytes: int) -> Iterator[bytes]:
    while size_bytes > 0:
        yield pattern[:size_bytes]
        size_bytes -= len(pattern)
