"""What does Paceline's request router add to a request in Ray Serve, beside Ray's own?

Two deployments with the same replicas, which answer at once, one behind Ray's default router (power of two choices),
one behind Paceline's. Calls alternate between the two, through handles in one process, so that whatever else the
machine does meets both alike. Needs Ray: `make .venv-ray/installed`, then
``.venv-ray/bin/python -m benchmarks.scale.ray_router``.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Any

import ray
from ray import serve

from paceline import Observation, Strategy
from paceline.integrations.ray_serve import Lanes, PacelineReplica, router_config

ROOT = Path(__file__).parents[2]
LINES = 40
"""Of the file in an edit; it has some 1,000 characters."""
BODIES = {
    "story, 40 characters": "Tell me a story about a lighthouse.",
    "edit, 1 KB": "Rename x to y in this file:\n```\n" + "value = value + x\n" * LINES + "```",
    "edit, 100 KB": "Rename x to y in this file:\n```\n" + "value = value + x\n" * (100 * LINES) + "```",
}
STREAMED = "a story's stream of 50 pieces"
PIECES = 50


class Replica(PacelineReplica):
    """Answers at once; reports what it did, if somebody wants to know."""

    def __init__(self) -> None:
        self.paceline = Lanes.of([Strategy(), Strategy("ngram", 8)], "benchmark")

    async def __call__(self, body: Mapping[str, Any]) -> str:
        with self.paceline.serving(body) as serving:
            serving.observed = Observation(prompt_tokens=10, completion_tokens=1)
            return "done"

    async def stream(self, body: Mapping[str, Any]) -> Any:
        with self.paceline.serving(body):
            for _ in range(PIECES):
                yield "piece"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=500, help="pairs of calls for each kind of request (default: 500)")
    options = parser.parse_args()
    ray.init(
        num_cpus=8,
        include_dashboard=False,
        object_store_memory=80 * 1024 * 1024,
        _node_ip_address="127.0.0.1",
        logging_level="ERROR",
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}},
    )
    common: Any = {"num_replicas": 2, "ray_actor_options": {"num_cpus": 0}, "max_ongoing_requests": 100}
    routers = {"Ray's": {}, "Paceline's": {"request_router_config": router_config(shared="benchmark")}}
    handles = {
        name: serve.run(serve.deployment(Replica, **common, **more).bind(), name=f"app-{number}", route_prefix=None)
        for number, (name, more) in enumerate(routers.items())
    }
    print(f"{'request':<32}{'router':<12}{'median ms':>10}{'p90 ms':>10}{'p99 ms':>10}{'added ms':>10}")
    for kind, text in (BODIES | {STREAMED: BODIES["story, 40 characters"]}).items():
        body = {"messages": [{"role": "user", "content": text}]}
        took = compared(handles, body, kind == STREAMED, options.calls)
        for name, times in took.items():
            added = median(times) - median(took["Ray's"])
            tail = quantiles(times, n=100)
            print(f"{kind:<32}{name:<12}{median(times):>10.2f}{tail[89]:>10.2f}{tail[98]:>10.2f}{added:>10.2f}")
    serve.shutdown()
    ray.shutdown()


def compared(
    handles: Mapping[str, Any], body: Mapping[str, Any], is_stream: bool, calls: int
) -> dict[str, list[float]]:
    """Milliseconds of each call, by router; the first tenth warms up."""
    took: dict[str, list[float]] = {name: [] for name in handles}
    for number in range(calls + calls // 10):
        order = list(handles.items())
        for name, handle in order if number % 2 else reversed(order):
            begun_s = perf_counter()
            if is_stream:
                assert len(list(handle.options(stream=True).stream.remote(body))) == PIECES
            else:
                assert handle.remote(body).result() == "done"
            if number >= calls // 10:
                took[name].append(1000 * (perf_counter() - begun_s))
    return took


if __name__ == "__main__":
    main()
