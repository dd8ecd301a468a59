"""Paceline picks, for every request to an LLM, the decoding strategy that is fastest on this machine.

These are the names for use as a library (docs/library.md), for which msgspec is enough. The gateway is
``paceline[serve]``.
"""

from importlib.metadata import PackageNotFoundError, version

from paceline.configuration import RoutingSettings, Rule
from paceline.routing.policy import Policy
from paceline.routing.router import Router
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
