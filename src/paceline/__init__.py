"""Paceline decides for every request how, and where, an LLM's answer is decoded.

These are the names for use as a library (docs/library.md), which needs msgspec and numpy. The gateway is
``paceline[serve]``.
"""

from importlib.metadata import PackageNotFoundError, version

from paceline.routing.policy import Policy
from paceline.routing.router import Router
from paceline.settings import RoutingSettings, Rule
from paceline.types import (
    Api,
    Decision,
    Lane,
    LaneState,
    Observation,
    Outcome,
    Prediction,
    Request,
    Signals,
    Strategy,
    Task,
)

try:
    __version__ = version("paceline")
except PackageNotFoundError:  # run from its source, without being installed
    __version__ = "from source"

__all__ = [
    "Api",
    "Decision",
    "Lane",
    "LaneState",
    "Observation",
    "Outcome",
    "Policy",
    "Prediction",
    "Request",
    "Router",
    "RoutingSettings",
    "Rule",
    "Signals",
    "Strategy",
    "Task",
]
