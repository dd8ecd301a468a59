"""Are off-policy estimates right? On simulated machines, where the truth is known.

    python -m benchmarks.evidence [--logs N] [--requests N ...]

Each log is what Paceline makes of its own requests, exploring as usual. From it always taking each lane, which never
ran, is estimated, and compared with what it would have taken on the same requests.
"""

import argparse
from random import Random
from statistics import mean

from benchmarks.learning.policies import paceline
from benchmarks.learning.worlds import REQUEST, World, embedded, mtp_counts, signals_by_task
from paceline import Decision, Outcome, RoutingSettings, Signals, Task
from paceline.evidence.estimate import Logged, always, estimate

GAP_S = 0.5


def one_log(
    world: World, signals: dict[Task, list[Signals]], requests: int, seed: int, exploration: float
) -> tuple[list[Logged], dict[str, float]]:
    """A log, and by lane the time that it would have taken over the time that was taken."""
    drawing, router = Random(seed), paceline(seed + 1000, exploration)
    now_s = 1.7e9
    entries: list[Logged] = []
    truth = dict.fromkeys((one.lane.name for one in world.lanes), 0.0)
    for _ in range(requests):
        draw = world.draw(signals, drawing)
        decision = router.choose(REQUEST, draw.signals, world.lanes)
        now_s += draw.expected_s[decision.lane] + GAP_S
        outcome = draw.outcome(decision.lane, now_s)
        entries.append(logged(draw.signals, decision, outcome))
        router.observe(decision, outcome)
        for name, seconds in draw.expected_s.items():
            truth[name] += seconds
    taken = sum(one.seconds for one in entries)
    return entries, {name: seconds / taken for name, seconds in truth.items()}


def logged(signals: Signals, decision: Decision, outcome: Outcome) -> Logged:
    decode_s, tokens = outcome.observed.decode_s or 0.0, outcome.observed.decode_tokens or 1
    in_seconds = all(one.s_per_token is not None for one in decision.predictions.values())
    return Logged(
        signals.task,
        decision.lane,
        tokens,
        decode_s / tokens,
        decision.propensities or {decision.lane: 1.0},
        {
            name: (one.s_per_token if in_seconds and one.s_per_token is not None else one.relative)
            for name, one in decision.predictions.items()
        },
        {name: one.spread for name, one in decision.predictions.items()},
        in_seconds,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logs", type=int, default=200)
    parser.add_argument("--requests", type=int, nargs="*", default=[400, 2000])
    parser.add_argument("--exploration", type=float, default=RoutingSettings().exploration)
    options = parser.parse_args()
    signals = signals_by_task()
    print("| machine | requests | always | truth inside the 95 % interval | half its width | error | on predictions |")
    print("|---|---|---|---|---|---|---|")
    for world in (embedded(), mtp_counts()):
        for requests in options.requests:
            made = [one_log(world, signals, requests, seed, options.exploration) for seed in range(options.logs)]
            for lane in (one.lane.name for one in world.lanes):
                found = [(estimate(log, always(lane)), truth[lane]) for log, truth in made]
                inside = mean(one.low <= truth <= one.high for one, truth in found)
                width = mean((one.high - one.low) / 2 for one, _ in found)
                error = mean(abs(one.ratio - truth) for one, truth in found)
                alone = mean(one.on_predictions for one, _ in found)
                print(
                    f"| {world.name} | {requests} | {lane} | {inside:.1%} | {width:.3f} | {error:.3f} | {alone:.0%} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
