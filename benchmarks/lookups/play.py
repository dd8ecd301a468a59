"""Prompt lookup, played exactly: which drafts it makes of what was said, and how many of their tokens are right.

At each step the last N tokens are looked up in all that precedes them; the tokens that follow their most recent place
are the draft, at most the cap of them. What agrees with the answer from the front is accepted, and one more token comes
from the model itself. It is how llama.cpp's ``ngram-simple`` works, at temperature 0.
"""

from collections.abc import Sequence

from msgspec import Struct


class Draft(Struct, frozen=True, gc=False):
    """What a lookup would do at one place of the answer."""

    drafted: int
    """Tokens that it would draft; 0 where the last N tokens never stood before."""
    right: int
    """How many of them, from the front, are what the answer says."""
    place: int | None = None
    """Of their first token among those of context and answer."""


class Played(Struct, frozen=True):
    """An answer's decoding, counted."""

    tokens: int
    steps: int
    drafted: int
    accepted: int
    covered: int
    """Tokens out of steps that accepted something."""

    @property
    def coverage(self) -> float:
        """Share of the tokens that come out of steps that accepted something."""
        return self.covered / self.tokens

    @property
    def length(self) -> float:
        """Acceptance length: tokens by step, over all steps."""
        return self.tokens / self.steps


def drafts(context: Sequence[int], answer: Sequence[int], n: int, longest: int) -> list[Draft]:
    """What a lookup of ``n`` tokens that drafts up to ``longest`` would do at each place of the answer.

    Args:
        context: tokens before the answer.
        answer: tokens of the answer.
        n: tokens that are looked up.
        longest: most tokens in a draft.
    """
    tokens = (*context, *answer)
    places: dict[tuple[int, ...], int] = {}
    begins = len(context)
    for end in range(n, begins):
        places[tokens[end - n : end]] = end
    found = []
    for at in range(begins, len(tokens)):
        key = tokens[max(0, at - n) : at]
        place = places.get(key)
        if place is None:
            found.append(Draft(0, 0))
        else:
            draft = tokens[place : min(place + longest, at)]
            found.append(Draft(len(draft), _alike(draft, tokens[at : at + longest]), place))
        if at >= n:
            places[key] = at
    return found


def _alike(some: Sequence[int], others: Sequence[int]) -> int:
    """Tokens in which both agree, from the front."""
    count = 0
    for one, other in zip(some, others, strict=False):
        if one != other:
            break
        count += 1
    return count


def play(found: Sequence[Draft], cap: int) -> Played:
    """The steps that an answer takes with drafts of at most ``cap`` tokens; ``found`` is of drafts as long at least."""
    at = steps = drafted = accepted = covered = 0
    while at < len(found):
        draft = found[at]
        right = min(draft.right, cap)
        made = min(right + 1, len(found) - at)
        steps += 1
        drafted += min(draft.drafted, cap)
        accepted += right
        covered += made if right else 0
        at += made
    return Played(tokens=len(found), steps=steps, drafted=drafted, accepted=accepted, covered=covered)
