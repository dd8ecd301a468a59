"""Paceline inside Ray Serve: a request router that chooses the replica and how it decodes (docs/ray-serve.md)."""

from paceline.integrations.ray_serve.engine import EngineReplica, Head, NotServed
from paceline.integrations.ray_serve.ingress import Ingress
from paceline.integrations.ray_serve.replica import Lanes, PacelineReplica, Serving
from paceline.integrations.ray_serve.router import PacelineRouter, router_config
from paceline.integrations.ray_serve.shared import RayStore, shared_actor

__all__ = [
    "EngineReplica",
    "Head",
    "Ingress",
    "Lanes",
    "NotServed",
    "PacelineReplica",
    "PacelineRouter",
    "RayStore",
    "Serving",
    "router_config",
    "shared_actor",
]
