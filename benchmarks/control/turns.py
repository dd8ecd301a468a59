"""Recorded answers as a lookup meets them: at each place, how long its match is, and how much of its draft is right."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from msgspec import Struct

from benchmarks.lookups.play import Draft, drafts
from benchmarks.lookups.tokens import Tokenizer, bundled
from benchmarks.lookups.turns import read, texts

MATCHES = (2, 3, 4, 6, 8, 12, 16)
"""Lengths of a match that are told apart, in tokens."""
LONGEST = 16
"""Tokens of the longest draft."""


class Place(Struct, frozen=True, gc=False):
    """What a lookup would do at one place of an answer; nothing where ``match`` is 0."""

    match: int
    """The longest of :data:`MATCHES` that stood before; the place where it did last is drafted from."""
    drafted: int
    right: int
    """As in :class:`benchmarks.lookups.play.Draft`."""


class Answer(Struct, frozen=True):
    source: str
    conversation: str
    places: Sequence[Place]
    """One for each token."""
    by_match: Mapping[int, Sequence[Draft]]
    """The drafts of a lookup of so many tokens, as ``ngram-simple`` makes them."""
    repeats: float
    """Share of the different 3-grams of the context that stand there more than once."""


def answers(path: Path) -> Iterator[Answer]:
    """Those of a file of recorded turns, in its order; ones without a token are left out."""
    tokenizer: Tokenizer = bundled()

    @cache
    def tokens(text: str) -> Sequence[int]:
        return tokenizer.tokens(text)

    for recorded in read(path):
        context = [token for text in texts(recorded.body) for token in tokens(text)]
        answer = tokens(recorded.answer)
        if not answer:
            continue
        by_match = {match: drafts(context, answer, match, LONGEST) for match in MATCHES}
        yield Answer(
            recorded.source,
            recorded.conversation,
            [_longest([(match, by_match[match][at]) for match in MATCHES]) for at in range(len(answer))],
            by_match,
            _repeats(context),
        )


def _longest(found: Sequence[tuple[int, Draft]]) -> Place:
    for match, draft in reversed(found):
        if draft.drafted:
            return Place(match, draft.drafted, draft.right)
    return Place(0, 0, 0)


def _repeats(context: Sequence[int]) -> float:
    counts: dict[tuple[int, ...], int] = {}
    for end in range(3, len(context) + 1):
        key = tuple(context[end - 3 : end])
        counts[key] = counts.get(key, 0) + 1
    return sum(count > 1 for count in counts.values()) / max(1, len(counts))
