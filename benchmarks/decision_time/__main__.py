"""How long does it take to inspect a request and to decide, and to learn from its outcome?

    python -m benchmarks.decision_time [--requests N]

Prompts of 2,000 characters, and of 2 MB; 8 lanes of one engine: plain, n-gram lookup and MTP at several caps. Every
request is decided on with what the one before has taught, so nothing is kept from one decision to the next.
"""

import argparse
from random import Random
from statistics import median
from time import perf_counter

from training.task_model.prompts import own_prompts

from paceline import Api, Lane, LaneState, Observation, Outcome, Request, Router, Strategy

STRATEGIES = (Strategy(), *(Strategy("ngram", n) for n in (2, 4, 8)), *(Strategy("mtp", n) for n in (1, 2, 4, 8)))
PARTS = ("inspect", "decide", "inspect + decide", "learn")


def requests_of(chars: int) -> list[Request]:
    """Chat requests of our own prompts with pasted text, lengthened or cut in the middle to a length."""
    requests = []
    for prompt in own_prompts():
        text = prompt.text
        if len(text) < 300:
            continue
        middle = len(text) // 2
        if len(text) < chars:
            filling = text[middle - 100 : middle + 100] * (chars // 200 + 1)
            text = text[:middle] + filling[: chars - len(text)] + text[middle:]
        else:
            text = text[: chars // 2] + text[-chars // 2 :]
        fields = {"messages": [{"role": "user", "content": text}], "temperature": 0.7, "max_tokens": 256}
        requests.append(Request(Api.OPENAI_CHAT, "/v1/chat/completions", b"", fields))
    return requests


def measure(requests: list[Request], count: int) -> dict[str, list[float]]:
    """Seconds by part."""
    lanes = [
        LaneState(Lane(str(strategy), "engine", strategy, "gpu"), fingerprint="engine", model="model")
        for strategy in STRATEGIES
    ]
    rng, router = Random(0), Router((), seed=1)
    taken: dict[str, list[float]] = {part: [] for part in PARTS}
    for number in range(count):
        request = requests[number % len(requests)]
        began_s = perf_counter()
        signals = router.inspect(request)
        inspected_s = perf_counter()
        decision = router.choose(request, signals, lanes)
        decided_s = perf_counter()
        observed = Observation(
            prompt_tokens=400,
            cached_tokens=0,
            completion_tokens=128,
            prefill_s=0.2,
            decode_tokens=127,
            decode_s=1.5 + rng.random(),
            drafted=90,
            accepted=30 + rng.randrange(50),
        )
        outcome = Outcome(decision.lane, 200, 3.0, observed=observed, at_s=1e9 + 3 * number)
        router.observe(decision, outcome)
        learned_s = perf_counter()
        for part, took_s in zip(
            PARTS,
            (inspected_s - began_s, decided_s - inspected_s, decided_s - began_s, learned_s - decided_s),
            strict=True,
        ):
            taken[part].append(took_s)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=5000)
    options = parser.parse_args()
    print("| microseconds | " + " | ".join(f"{part}: median | p99" for part in PARTS) + " |")
    print("|---" * (1 + 2 * len(PARTS)) + "|")
    for name, chars, count in (
        ("2,000 characters", 2000, options.requests),
        ("2 MB", 2_000_000, options.requests // 10),
    ):
        taken = measure(requests_of(chars)[:: 1 if chars < 10_000 else 50], count)
        cells = []
        for part in PARTS:
            ranked = sorted(taken[part])
            cells += [1e6 * median(ranked), 1e6 * ranked[int(0.99 * len(ranked))]]
        print(f"| {name} | " + " | ".join(f"{cell:.0f}" for cell in cells) + " |")


if __name__ == "__main__":
    main()
