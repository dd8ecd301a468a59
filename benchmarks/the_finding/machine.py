"""The machine's side: what drafting costs, measured at any acceptance.

``--spec-synth-rates`` has llama.cpp accept drafted tokens by dice instead of by the model: the text is no text, but
every step costs what it costs. So one model with an MTP layer, however bad, shows the speed-up at every acceptance,
and the one from which a draft length pays.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

from msgspec import Struct

from benchmarks.llama_server import LlamaServer
from paceline.decision.drafting import acceptance_of, accepted_per_draft

LONGEST = 8
CAPS = (1, 2, 4, LONGEST)
ACCEPTANCES = (0.3, 0.6, 0.9)
CONCURRENCIES = (1, 2, 4)
PROMPT = "Tell me about the sea, the wind and the people who live from both."


class Measured(Struct, frozen=True):
    """One way to decode, at one concurrency."""

    acceptance: float
    cap: int
    concurrency: int
    s_per_token: float
    """Of each request: seconds of decoding per token, median."""
    steps_per_token: float


class Machine(Struct, frozen=True):
    """A quantization's measurements."""

    name: str
    measured: list[Measured]

    @property
    def concurrencies(self) -> list[int]:
        """That were measured."""
        return sorted({sample.concurrency for sample in self.measured})

    def plain_s(self, concurrency: int) -> float:
        """Seconds of a plain step."""
        return median(
            [sample.s_per_token for sample in self.measured if sample.cap == 0 and sample.concurrency == concurrency]
        )

    def speed_up(self, acceptance: float, cap: int, concurrency: int) -> float:
        """As measured, over plain at the same concurrency."""
        samples = [
            sample
            for sample in self.measured
            if (sample.acceptance, sample.cap, sample.concurrency) == (acceptance, cap, concurrency)
        ]
        return self.plain_s(concurrency) / median([sample.s_per_token for sample in samples])

    def step_cost(self, cap: int, concurrency: int) -> float:
        """Of a step that drafts so many tokens and verifies them, in plain steps: a step costs the same whatever is
        accepted, so this is a mean over all acceptances."""
        costs = [
            sample.s_per_token / sample.steps_per_token / self.plain_s(concurrency)
            for sample in self.measured
            if sample.cap == cap and sample.concurrency == concurrency
        ]
        return median(costs)

    def predicted(self, acceptance: float, cap: int, concurrency: int) -> float:
        """Speed-up by the formula: tokens per step over cost of a step."""
        return (1 + accepted_per_draft(acceptance, cap)) / self.step_cost(cap, concurrency)

    def break_even(self, cap: int, concurrency: int) -> float | None:
        """The acceptance from which drafts of this length pay; ``None`` where none is enough."""
        needed = self.step_cost(cap, concurrency) - 1
        return None if needed > cap else acceptance_of(max(0.0, needed), cap)


def measure(
    program: str, name: str, model: Path, concurrencies: Sequence[int], tokens: int, report: Callable[[str], None]
) -> Machine:
    """All acceptances and caps.

    Args:
        model: with MTP layers.
        concurrencies: to measure at.
    """
    samples = []
    for acceptance in ACCEPTANCES:
        rates = ",".join(f"{acceptance ** (place + 1):.5f}" for place in range(LONGEST))
        flags = ("--spec-type", "draft-mtp", "--spec-draft-n-max", str(LONGEST), "--spec-synth-rates", rates)
        server = LlamaServer(program, model, *flags, "--parallel", str(max(CONCURRENCIES)))
        try:
            server.chat(PROMPT)
            for concurrency in concurrencies:
                for cap in (0, *CAPS):
                    report(f"{name}: acceptance {acceptance}, {concurrency} at once, {cap} drafted")
                    done = _together(server, concurrency, cap, tokens)
                    samples += [_measured(timings, acceptance, cap, concurrency) for timings in done]
        finally:
            server.stop()
    return Machine(name, samples)


def _together(server: LlamaServer, concurrency: int, cap: int, tokens: int) -> Sequence[dict[str, Any]]:
    asked = {"max_tokens": tokens, "ignore_eos": True, "speculative.n_max": cap}
    with ThreadPoolExecutor(concurrency) as pool:
        return [
            timings
            for _, timings in pool.map(lambda place: server.chat(f"{place}. {PROMPT}", **asked), range(concurrency))
        ]


def _measured(timings: dict[str, Any], acceptance: float, cap: int, concurrency: int) -> Measured:
    tokens = timings["predicted_n"] - 1
    steps = tokens - timings.get("draft_n_accepted", 0)
    return Measured(
        acceptance=acceptance,
        cap=cap,
        concurrency=concurrency,
        s_per_token=timings["predicted_ms"] / 1000 / tokens,
        steps_per_token=steps / tokens,
    )
