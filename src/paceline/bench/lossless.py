"""Do all lanes answer with the same text at temperature 0?

Speculation does not change what a model says, but a batch of several tokens is computed in another order than one
token, which moves probabilities a little: where two tokens are about equally likely, texts may part. A parting anywhere
else is a fault.
"""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from paceline.bench.asking import Asker
from paceline.bench.results import Sample
from paceline.bench.workload import Item

MAX_NEAR_TIE = 0.3
"""Difference of two tokens' log probabilities below which rounding may decide between them. On the bundled model in
Q8_0, batching moves log probabilities by up to 0.15."""
ALTERNATIVES = 5
"""Tokens that a lane is asked to name at each place, as many as OpenAI's API gave at first."""


class Parting(Struct, frozen=True):
    """Two texts that are not the same."""

    item: str
    lane: str
    at: int
    """Characters that both have in common."""
    gap: float | None
    """By which the log probabilities of the two tokens differ there, on the first lane; ``None`` where the other's is
    not among its likeliest, or it tells no log probabilities."""

    @property
    def is_near_tie(self) -> bool:
        return self.gap is not None and self.gap <= MAX_NEAR_TIE

    def __str__(self) -> str:
        where = f"{self.lane}, {self.item}: parts after {self.at} characters"
        if self.gap is None:
            return f"{where}, and its token is none of the {ALTERNATIVES} likeliest"
        return f"{where}, where the two tokens' log probabilities differ by {self.gap:.2f}"


async def partings(
    asker: Asker, lanes: Sequence[str], items: Sequence[Item], samples: Sequence[Sample]
) -> list[Parting]:
    """Where the lanes' texts part from the first lane's.

    Raises:
        ConnectFailed, ConnectionLost: from the client.
    """
    texts = {(sample.item, sample.way): sample.text for sample in samples if sample.error is None}
    parted = []
    for item in items:
        tokens: list[Any] | None = None
        first = texts.get((item.id, lanes[0]))
        for lane in lanes[1:]:
            other = texts.get((item.id, lane))
            if first is None or other is None or first == other:
                continue
            if tokens is None:
                tokens = await asker.likeliest_tokens(item, lanes[0], ALTERNATIVES)
            at = next(
                (place for place, pair in enumerate(zip(first, other, strict=False)) if len({*pair}) == 2),
                min(len(first), len(other)),
            )
            gap = _gap(tokens, first, other, at)
            parted.append(Parting(item=item.id, lane=lane, at=at, gap=gap))
    return parted


def _gap(tokens: Sequence[Any], first: str, other: str, at: int) -> float | None:
    begin = 0
    for token in tokens:
        end = begin + len(token["token"])
        if end > at:
            rest = other[begin:]
            # of tokens that begin alike, the longest is the one that was taken
            others = [entry for entry in token["top_logprobs"] if entry["token"] not in ("", token["token"])]
            fitting = [entry for entry in others if rest.startswith(entry["token"])]
            if not first.startswith(token["token"], begin) or not fitting:
                return None
            return float(token["logprob"] - max(fitting, key=lambda entry: len(entry["token"]))["logprob"])
        begin = end
    return None
