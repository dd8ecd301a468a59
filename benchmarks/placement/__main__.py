"""Own engine or provider's: who is in time, and who is right, for which money?

    python -m benchmarks.placement [FILE] [--seeds N] [--requests N]

1. *Waiting* (``waiting.py``): requests on time in a world with a queue and a deadline, against one side alone and
   spilling over by number.
2. *Questions* (``questions.py``): how much of the gap between two models is closed at equal spend, against chance, the
   subject's label in hindsight, and the oracle. FILE has questions in the form that is told there.
"""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.placement import questions, waiting
from paceline.text_table import columns

SPENDS = (0.25, 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.placement", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("file", nargs="?", type=Path, help="questions; default: made of the sums by subject")
    parser.add_argument("--seeds", type=int, default=5, help="orders and arrivals by chance")
    parser.add_argument("--requests", type=int, default=3000, help="of the world with a queue, by seed")
    options = parser.parse_args()
    seeds = range(1, options.seeds + 1)
    print("Waiting: shares on time and on one's own engine, price of 1,000 requests")
    print(columns([("policy", "on time", "local", "price"), *_waiting(waiting.compared(options.requests, seeds))]))
    for spend in SPENDS:
        print(f"\nQuestions, at about {spend:.0%} of the price of asking the cloud model everything")
        by_policy: dict[str, list[questions.Result]] = {}
        for seed in seeds:
            for found in questions.compared(questions.questions(options.file, seed), spend):
                by_policy.setdefault(found.policy, []).append(found)
        print(columns([("policy", "spent", "right", "gap closed"), *_questions(by_policy.values())]))


def _waiting(results: Iterable[waiting.Result]) -> list[Sequence[str]]:
    return [(one.policy, f"{one.on_time:.3f}", f"{one.local:.3f}", f"{one.cost:.2f}") for one in results]


def _questions(results: Iterable[Sequence[questions.Result]]) -> list[Sequence[str]]:
    return [
        (
            alike[0].policy,
            f"{sum(one.spend for one in alike) / len(alike):.3f}",
            f"{sum(one.right for one in alike) / len(alike):.3f}",
            f"{sum(one.closed for one in alike) / len(alike):.3f}",
        )
        for alike in results
    ]


if __name__ == "__main__":
    main()
