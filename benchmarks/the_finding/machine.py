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
AT_ONCE = (1, 2, 4)
PROMPT = "Tell me about the sea, the wind and the people who live from both."


class Measured(Struct, frozen=True):
    """One way to decode, of one number of requests at once."""

    acceptance: float
    cap: int
    at_once: int
    s_per_token: float
    """Of each request: seconds of decoding per token, median."""
    steps_per_token: float


class Machine(Struct, frozen=True):
    """A quantization's measurements."""

    name: str
    measured: list[Measured]

    @property
    def numbers(self) -> list[int]:
        """Of requests at once."""
        return sorted({one.at_once for one in self.measured})

    def plain_s(self, at_once: int) -> float:
        """Seconds of a plain step."""
        return median([one.s_per_token for one in self.measured if one.cap == 0 and one.at_once == at_once])

    def speed_up(self, acceptance: float, cap: int, at_once: int) -> float:
        """As measured, over plain at the same number of requests."""
        found = [one for one in self.measured if (one.acceptance, one.cap, one.at_once) == (acceptance, cap, at_once)]
        return self.plain_s(at_once) / median([one.s_per_token for one in found])

    def step_cost(self, cap: int, at_once: int) -> float:
        """Of a step that drafts so many tokens and verifies them, in plain steps: a step costs the same whatever is
        accepted, so this is a mean over all acceptances."""
        costs = [
            one.s_per_token / one.steps_per_token / self.plain_s(at_once)
            for one in self.measured
            if one.cap == cap and one.at_once == at_once
        ]
        return median(costs)

    def predicted(self, acceptance: float, cap: int, at_once: int) -> float:
        """Speed-up by the formula: tokens per step over cost of a step."""
        return (1 + accepted_per_draft(acceptance, cap)) / self.step_cost(cap, at_once)

    def break_even(self, cap: int, at_once: int) -> float | None:
        """The acceptance from which drafts of this length pay; ``None`` where none is enough."""
        needed = self.step_cost(cap, at_once) - 1
        return None if needed > cap else acceptance_of(max(0.0, needed), cap)


def measure(
    program: str, name: str, model: Path, numbers: Sequence[int], tokens: int, report: Callable[[str], None]
) -> Machine:
    """All acceptances and caps.

    Args:
        model: with MTP layers.
        numbers: of requests at once.
    """
    found = []
    for acceptance in ACCEPTANCES:
        rates = ",".join(f"{acceptance ** (place + 1):.5f}" for place in range(LONGEST))
        flags = ("--spec-type", "draft-mtp", "--spec-draft-n-max", str(LONGEST), "--spec-synth-rates", rates)
        server = LlamaServer(program, model, *flags, "--parallel", str(max(AT_ONCE)))
        try:
            server.chat(PROMPT)
            for at_once in numbers:
                for cap in (0, *CAPS):
                    report(f"{name}: acceptance {acceptance}, {at_once} at once, {cap} drafted")
                    done = _at_once(server, at_once, cap, tokens)
                    found += [_measured(timings, acceptance, cap, at_once) for timings in done]
        finally:
            server.stop()
    return Machine(name, found)


def _at_once(server: LlamaServer, at_once: int, cap: int, tokens: int) -> Sequence[dict[str, Any]]:
    asked = {"max_tokens": tokens, "ignore_eos": True, "speculative.n_max": cap}
    with ThreadPoolExecutor(at_once) as pool:
        return [
            timings for _, timings in pool.map(lambda place: server.chat(f"{place}. {PROMPT}", **asked), range(at_once))
        ]


def _measured(timings: dict[str, Any], acceptance: float, cap: int, at_once: int) -> Measured:
    tokens = timings["predicted_n"] - 1
    steps = tokens - timings.get("draft_n_accepted", 0)
    return Measured(acceptance, cap, at_once, timings["predicted_ms"] / 1000 / tokens, steps / tokens)
