"""The control of one request's drafts in an engine that has one drafter, and drafts whether that is wanted or not."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from paceline.inside.draft_control import DraftControl, Offer, drafters_of

DRAFTER = "drafter"
"""The name of the only one."""


class RequestControl:
    """What it has to remember from one step to the next.

    Args:
        given: an object with ``costs``, ``acceptance`` and ``weight``, as decoded from JSON.
        longest: tokens of the longest draft that the engine makes.
        is_watched: whether the tokens of drafts are known, also of those that are not verified.

    Raises:
        ValueError: what is given makes no sense; says why.
    """

    def __init__(self, given: Any, longest: int, is_watched: bool) -> None:
        (drafter,) = drafters_of({DRAFTER: given}).values()
        self._control = DraftControl({DRAFTER: replace(drafter, is_watched=is_watched)}, longest)
        self._cut: Sequence[int] = ()
        """A draft that was not verified, as far as it is not yet known whether it was right."""
        self._compared = 0

    def limit(self, offered: int) -> int:
        """Tokens of a draft to verify in the next step."""
        return self._control.choose({DRAFTER: Offer(offered)}).length

    def cut(self, draft: Sequence[int]) -> None:
        """This draft is not verified."""
        if not self._cut:
            self._cut, self._compared = list(draft), 0

    def generated(self, tokens: Sequence[int], verified: int) -> None:
        """A step has generated these tokens, of which all but the last were drafted where it has verified some."""
        if verified:
            self._cut = ()
            self._control.verified(DRAFTER, verified, min(len(tokens) - 1, verified))
            return
        self._control.decoded(len(tokens))
        for token in tokens:
            if self._cut and self._compared < len(self._cut) and token == self._cut[self._compared]:
                self._compared += 1
            elif self._cut:  # the draft is at its end: with the one token that follows what is right of it
                self._control.watched(DRAFTER, len(self._cut), self._compared)
                self._cut = ()
