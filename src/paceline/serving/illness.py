"""Engines that are ill rather than dead: up by their looks, but failing what they are sent.

As a circuit breaker (Envoy's outlier detection, olla's breaker): after failures in a row, or in most of the last
requests, an engine is ejected for a while, and the others are used. Unlike theirs, what ends an ejection is no
user's request but a tiny one of our own, of the form that failed. A provider's engine is asked nothing of our own: what
ends its ejection is one request of a user's (it is half-open), which can still be served elsewhere.
"""

import asyncio
from collections import deque

from paceline.serving.failure import Failure
from paceline.types import Api, Request

FAILURES_IN_A_ROW = 3
"""After so many of one form (dialect, streamed or not, model) an engine is ejected: it may be ill for streams alone, or
for one of its models. Envoy waits for 5, olla for 3; a request that fails here is served elsewhere, so that being wrong
costs little."""
DOUBTS_IN_A_ROW = 3
"""Different requests that failed on this and on another engine, with none that was served in between: one may be the
cause of its failures itself, several are not."""
BODY_END_BYTES = 512
"""Of a request's body, by which it is known again."""
MAX_FORMS = 64
"""Of requests that failed, that are counted apart."""
LAST_OUTCOMES = 10
"""Requests that are looked back at."""
MAX_FAILED = 5
"""Of the last outcomes, failures at which an engine is ejected though some requests succeed in between."""
EJECTION_S = (2.0, 4.0, 8.0, 15.0, 30.0)
"""Until the first, second ... trial; the last one repeats. The first is short, for a hiccup is the usual case."""
RELAPSE_S = 60.0
"""An engine that fails again so soon after it was let in goes on from the pause that it had reached."""

Form = tuple[Api, bool, str | None]
"""Dialect, whether it is streamed, the model."""


class Illness:
    """What was seen of one engine's answers lately."""

    def __init__(self) -> None:
        self.problem: str | None = None
        """Why it is ejected; ``None`` while it is not."""
        self.failed_api = Api.OPENAI_CHAT
        self.failed_stream = False
        self.failed_model: str | None = None
        """What the engine calls the model that it failed with."""
        self._in_a_row: dict[Form, int] = {}
        self._doubts: set[tuple[int, bytes]] = set()
        self._last: deque[bool] = deque(maxlen=LAST_OUTCOMES)
        self._ejections = 0
        self._trial_at_s = 0.0
        self._let_in_at_s = float("-inf")
        self._is_half_open = False
        """Whether the next request is the trial."""
        self._is_tried = False
        """Whether a user's request is on trial."""

    @property
    def is_ejected(self) -> bool:
        """Whether the engine is left out for a while."""
        return self.problem is not None and not self._is_half_open

    def half_open(self) -> None:
        """Take one request as the trial."""
        self._is_half_open = self.problem is not None

    def takes(self) -> None:
        """A request is sent to it; where one was to be the trial, this is it, and no other is sent until it is over."""
        if self._is_half_open:
            self._is_half_open, self._is_tried = False, True

    def served(self, request: Request) -> None:
        """A request came out well."""
        if self._is_tried:
            self.let_in()
        self._in_a_row.pop(_form(request), None)
        self._doubts.clear()
        self._last.append(False)

    def failed(self, request: Request, kind: Failure, problem: str, model: str | None = None) -> bool:
        """A request failed by the engine's fault. Returns whether this ejects it.

        Args:
            model: what the engine calls its model.
        """
        form = _form(request)
        in_a_row = self._in_a_row.pop(form, 0) + 1
        self._in_a_row[form] = in_a_row
        if len(self._in_a_row) > MAX_FORMS:
            del self._in_a_row[next(iter(self._in_a_row))]
        self._last.append(True)
        self.failed_api, self.failed_stream, self.failed_model = request.api, request.stream, model
        now_s = _now_s()
        if self.is_ejected:  # there was no other to use; a trial would tell no more than this did
            self._trial_at_s = max(self._trial_at_s, now_s + EJECTION_S[min(self._ejections, len(EJECTION_S)) - 1])
            self._is_tried = False
            return False
        if max(in_a_row, len(self._doubts)) < FAILURES_IN_A_ROW and sum(self._last) < MAX_FAILED:
            return False
        if now_s - self._let_in_at_s > RELAPSE_S:
            self._ejections = 0
        self._eject(now_s, f"{kind}: {problem}")
        return True

    def is_in_doubt(self, request: Request) -> bool:
        """A request failed here as it did on another engine, so that the fault may be its own. Returns whether there
        were too many of these for that."""
        if len(self._doubts) < DOUBTS_IN_A_ROW:
            self._doubts.add((len(request.body), request.body[-BODY_END_BYTES:]))
        return len(self._doubts) >= DOUBTS_IN_A_ROW

    def is_due_for_trial(self) -> bool:
        """Whether its pause is over; the next one begins now, in case the trial fails."""
        if self.problem is None or _now_s() < self._trial_at_s:
            return False
        self._eject(_now_s(), self.problem or "")
        return True

    def let_in(self) -> None:
        """A trial went well, or it was started anew."""
        if self.problem is not None:
            self._let_in_at_s = _now_s()
        self.problem = None
        self._is_half_open = self._is_tried = False
        self._in_a_row.clear()
        self._doubts.clear()
        self._last.clear()

    def _eject(self, now_s: float, problem: str) -> None:
        self.problem = problem
        self._trial_at_s = now_s + EJECTION_S[min(self._ejections, len(EJECTION_S) - 1)]
        self._ejections += 1


def _form(request: Request) -> Form:
    return request.api, request.stream, request.served_model


def _now_s() -> float:
    return asyncio.get_running_loop().time()
