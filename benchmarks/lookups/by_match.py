"""What the length of a lookup's match tells of its draft.

    python -m benchmarks.lookups.by_match FILE

FILE is as ``python -m benchmarks.lookups`` takes it. The last two tokens are looked up at each step, the most recent
place counts, and what stood before it is compared further back: so many tokens match. Printed is, by the length of the
match, how many drafts there were, and the share of them whose tokens at each position are accepted, given that those
before were.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from benchmarks.lookups.play import drafts
from benchmarks.lookups.tokens import bundled
from benchmarks.lookups.turns import read, texts

LOOKED_UP = 2
LONGEST = 12
"""Tokens of a draft."""
FROM = (2, 3, 4, 7, 11)
"""Lengths of matches that are told apart, each up to the next one."""
ALL = 0


def matches(context: Sequence[int], answer: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """For each draft of an answer: tokens that matched (at most the largest of :data:`FROM`), that were drafted, and
    that were right."""
    tokens, begins, at = (*context, *answer), len(context), 0
    found = drafts(context, answer, LOOKED_UP, LONGEST)
    while at < len(found):
        draft = found[at]
        if draft.drafted and draft.place is not None:
            length, most = LOOKED_UP, min(FROM[-1], draft.place)
            while length < most and tokens[draft.place - length - 1] == tokens[begins + at - length - 1]:
                length += 1
            yield length, draft.drafted, draft.right
        at += draft.right + 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    tokenizer = bundled()

    @cache
    def tokens(text: str) -> Sequence[int]:
        return tokenizer.tokens(text)

    reached: dict[tuple[int, int], int] = defaultdict(int)
    accepted: dict[tuple[int, int], int] = defaultdict(int)
    for recorded in read(parser.parse_args().file):
        context = [token for text in texts(recorded.body) for token in tokens(text)]
        for length, drafted, right in matches(context, tokens(recorded.answer)):
            group = max(known for known in FROM if known <= length)
            for of in (group, ALL):
                for position in range(min(drafted, right + 1)):
                    reached[of, position] += 1
                    accepted[of, position] += position < right
    for group in (*FROM, ALL):
        shares = [f"{accepted[group, place] / max(1, reached[group, place]):.2f}" for place in range(LONGEST)]
        print(f"{group or 'all':>3} {reached[group, 0]:6}  {' '.join(shares)}")


if __name__ == "__main__":
    main()
