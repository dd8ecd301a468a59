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
from paceline import RoutingSettings, Signals, Task
from paceline.evidence.estimate import Sample, always, estimate
from paceline.evidence.usable import sample_of
from paceline.records.kept import kept_record

GAP_S = 0.5


def one_log(
    world: World, signals: dict[Task, list[Signals]], requests: int, seed: int, exploration: float
) -> tuple[list[Sample], dict[str, float]]:
    """A log, and by lane the time that it would have taken over the time that was taken."""
    drawing, router = Random(seed), paceline(seed + 1000, exploration)
    now_s = 1.7e9
    samples: list[Sample] = []
    expected_s = dict.fromkeys((state.lane.name for state in world.lanes), 0.0)
    for _ in range(requests):
        draw = world.draw(signals, drawing)
        decision = router.choose(REQUEST, draw.signals, world.lanes)
        now_s += draw.expected_s[decision.lane] + GAP_S
        outcome = draw.outcome(decision.lane, now_s)
        router.observe(decision, outcome)
        if (sample := sample_of(kept_record(REQUEST, draw.signals, decision, outcome))) is not None:
            samples.append(sample)
            for name, seconds in draw.expected_s.items():
                expected_s[name] += seconds
    taken_s = sum(sample.seconds for sample in samples)
    return samples, {name: seconds / taken_s for name, seconds in expected_s.items()}


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
            for lane in (state.lane.name for state in world.lanes):
                estimates = [(estimate(samples, always(lane)), truth[lane]) for samples, truth in made]
                inside = mean(estimated.low <= truth <= estimated.high for estimated, truth in estimates)
                width = mean((estimated.high - estimated.low) / 2 for estimated, _ in estimates)
                error = mean(abs(estimated.ratio - truth) for estimated, truth in estimates)
                alone = mean(estimated.on_predictions for estimated, _ in estimates)
                print(
                    f"| {world.name} | {requests} | {lane} | {inside:.1%} | {width:.3f} | {error:.3f} | {alone:.0%} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
