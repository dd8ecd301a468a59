"""Hollow models of real shapes, and plans for them."""

import tempfile
from functools import cache
from pathlib import Path

from benchmarks.planning.hollow_models import Shape, write
from benchmarks.planning.shapes import REAL, TINY

from paceline.planning.devices import Machine
from paceline.planning.drafters import FoundDrafter
from paceline.planning.dry_run import Judge
from paceline.planning.gguf import read_model
from paceline.planning.given_devices import given_machine
from paceline.planning.memory import Model, model_of
from paceline.planning.plan import Plan, Wish
from paceline.planning.planner import make_plan

GIB = 1 << 30

_FOLDER = tempfile.TemporaryDirectory(prefix="paceline-hollow-")


@cache
def hollow(name: str) -> Model:
    """Of a real shape, or of a tiny one by its family's name."""
    return written(name, REAL[name] if name in REAL else TINY[name])


def written(name: str, shape: Shape) -> Model:
    return model_of(read_model(write(Path(_FOLDER.name), name, shape)))


def planned(name: str, gpus: str, wish: Wish | None = None, host_gib: float = 64, judge: Judge | None = None) -> Plan:
    return of_model(hollow(name), given_machine(gpus, int(host_gib * GIB)), wish or Wish(), judge)


def of_model(model: Model, machine: Machine, wish: Wish, judge: Judge | None = None) -> Plan:
    drafter = FoundDrafter("mtp", 4) if model.mtp_layers else None
    return make_plan(model, machine, wish, drafter, judge)
