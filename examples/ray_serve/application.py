"""Engines on one machine behind Ray Serve, routed by Paceline. `docs/ray-serve.md` tells how to run it."""

import json
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application

from paceline.engines.bundled_model import bundled_model
from paceline.engines.llama_cpp_build import usable
from paceline.integrations.ray_serve import EngineReplica, Ingress, router_config
from paceline.paths import cache_directory

SLOTS, CONTEXT_TOKENS = 4, 2048
"""Requests that an engine decodes at once, and the context of each."""
LOOKUP = ("--spec-type", "ngram-simple", "--spec-ngram-simple-size-n", "3", "--spec-ngram-simple-size-m", "8")
"""Drafts come from looking up the last three tokens in what was said before."""


def application(arguments: dict[str, Any]) -> Application:
    """What `serve run` takes.

    Args:
        arguments: `replicas`, which is `auto` for one that becomes two under load (the default), or a number;
            `model`, the path of a GGUF file (default: the bundled one); and settings of Paceline's router.
    """
    replicas = arguments.pop("replicas", "auto")
    model = Path(arguments.pop("model", None) or bundled_model(cache_directory()))
    engines = serve.deployment(
        EngineReplica,
        name="engines",
        request_router_config=router_config(**arguments),
        ray_actor_options={"num_cpus": 1},
        max_ongoing_requests=16,
        health_check_period_s=2,
        graceful_shutdown_timeout_s=5,
        **(AUTOSCALING if replicas == "auto" else {"num_replicas": int(replicas)}),
    )
    ingress = serve.deployment(Ingress, name="ingress", ray_actor_options={"num_cpus": 0}, max_ongoing_requests=256)
    return ingress.bind(engines.bind(engine_tables(model)))


AUTOSCALING = {
    "autoscaling_config": {
        "min_replicas": 1,
        "max_replicas": 2,
        "target_ongoing_requests": 2,
        "upscale_delay_s": 2,
        "downscale_delay_s": 300,
    }
}


def engine_tables(model: Path) -> str:
    """The configuration of the replicas' engines. The server that `paceline engine build` makes takes its strategy from
    each request, so that all replicas are alike. Without it, one replica decodes plainly and the next looks up."""
    build = usable(cache_directory())
    if build:
        return engine_table("llama", build.server, model, "ngram", *LOOKUP)
    return engine_table("plain", "embedded", model, "autoregressive") + engine_table(
        "lookup", "embedded", model, "ngram", *LOOKUP
    )


def engine_table(name: str, program: str, model: Path, strategy: str, *flags: str) -> str:
    """An `[[engine]]` table of Paceline's configuration, for an engine that computes with one thread."""
    launch = [program, "--model", str(model), "--alias", "smol", "--port", "{port}", "--threads", "1"]
    launch += ["--parallel", str(SLOTS), "--ctx-size", str(SLOTS * CONTEXT_TOKENS), *flags]
    table = {"name": name, "kind": "llama.cpp", "launch": launch, "strategy": strategy, "device": "cpu"}
    return "[[engine]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
