"""Hollow models of real shapes, as tests plan with them."""

import tempfile
from functools import cache
from pathlib import Path

from benchmarks.planning.hollow_models import Shape, write
from benchmarks.planning.shapes import REAL, TINY

from paceline.planning.gguf import read_model
from paceline.planning.memory import Model, model_of

_FOLDER = tempfile.TemporaryDirectory(prefix="paceline-hollow-")


@cache
def hollow(name: str) -> Model:
    """Of a real shape, or of a tiny one by its family's name."""
    return written(name, REAL[name] if name in REAL else TINY[name])


def written(name: str, shape: Shape) -> Model:
    return model_of(read_model(write(Path(_FOLDER.name), name, shape)))
