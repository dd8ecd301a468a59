"""What the arrival of an answer's tokens tells about the time that they took, and when it tells nothing.

The clock sees when events arrive, not when tokens are made. The two go together where an engine sends each token, or
those of each step, as soon as it has them. They do not where an answer is made first and sent afterwards, where a
proxy collects it, or where tokens are counted that were never sent. So times are told only if the arrivals can carry
them:

- There are at least :data:`MIN_ARRIVALS` of them. Not more are demanded: a drafting engine sends several tokens per
  step, so a higher bound would leave out just the short answers that drafting made fast.
- They are as far apart as steps can be: :data:`MIN_GAP_S` on average. Below :data:`PACED_GAP_S`, which few engines
  and every replay stay under, the whole also has to take at least :data:`MIN_SHARE_OF_SILENCE` of the time before it:
  an answer that was made during a silence and comes in a fraction of it was not decoded in that fraction.
- The tokens are spread over them: not most of them at the beginning. (Most of them at the end is no harm: they were
  made in the time between.)
- The text is long enough for the tokens that are counted (thinking may be counted and not be sent), and has not far
  more events than tokens.

What came with the first arrival was made before it, so neither is it counted as decoded, nor does a first arrival
that took many steps to collect tell when the prompt had been read.
"""

from typing import NamedTuple

MIN_ARRIVALS = 4
"""Fewer intervals than three tell no pace."""
MIN_GAP_S = 0.0005
"""No engine makes steps this short: one of a model with 135 million parameters on a GPU takes about 0.7 ms."""
PACED_GAP_S = 0.006
"""Replays through Python or a proxy take 0.1 to 1 ms per event, those that pretend to type a few more."""
MIN_SHARE_OF_SILENCE = 0.5
"""Of the time before the first arrival, that the others have to take where they come that close; set by hand."""
MAX_EARLY_SHARE = 0.5
"""Of the events, in the first tenth of the time."""
MIN_BYTES_PER_TOKEN = 0.5
"""Ordinary text has three to four; digits and blanks one; the markup of a tool call is counted and not sent."""
MAX_EVENTS_PER_TOKEN = 2.0
"""Set by hand: an event may hold less than a token, but hardly less than half of one."""
LONG_FIRST_BYTES = 64
"""A first arrival with more text than this per event is looked at by its text."""
MAX_PREFILL_ERROR = 0.2
"""Share of the time to the first arrival that its tokens, beyond one, may have taken."""
MAX_SAMPLES = 16
"""Arrivals that are kept; beyond that every other one goes."""


class Times(NamedTuple):
    """``None`` where it is unknown."""

    prefill_s: float | None = None
    decode_tokens: int | None = None
    decode_s: float | None = None


UNKNOWN = Times()


class TokenClock:
    """Counts the arrivals of one answer's tokens."""

    def __init__(self) -> None:
        self.events = 0
        """That held text."""
        self._text_bytes = 0
        self._arrivals = 0
        self._first_s = self._last_s = -1.0
        self._first_events = self._first_bytes = 0
        self._end_s = 0.0
        self._end_events = 0
        self._samples: list[tuple[float, int]] = []
        self._stride = 1
        self._next_sample = 0

    def token(self, at_s: float, text_bytes: int) -> None:
        """An event with text arrived."""
        if at_s != self._last_s:
            self._last_s = at_s
            if self._arrivals == self._next_sample:
                self._sample(at_s)
            self._arrivals += 1
        self.events += 1
        self._text_bytes += text_bytes

    def other(self, at_s: float) -> None:
        """An event without text arrived: the first one after the last text tells of the step that ended the answer."""
        if self.events != self._end_events:
            self._end_events, self._end_s = self.events, at_s

    def times(self, tokens: int | None) -> Times:
        """What can be believed.

        Args:
            tokens: of the answer, as the engine counts them; without that only the prefill may be known.
        """
        if not self.events:
            return UNKNOWN
        if tokens == 1:
            return Times(self._first_s if self.events == 1 else None)
        count = self.events if tokens is None else tokens
        if not self._carries(count):
            return UNKNOWN
        first_tokens = (
            max(1, round(count * self._first_share())) if self._first_events > 1 or self._is_first_long() else 1
        )
        after_first = count - first_tokens
        if after_first < 1:
            return UNKNOWN
        span_s = self._last_s - self._first_s
        early_s = (first_tokens - 1) * span_s / after_first
        prefill_s = self._first_s if early_s <= MAX_PREFILL_ERROR * self._first_s else None
        if tokens is None or self._arrivals < MIN_ARRIVALS:
            return Times(prefill_s)
        gap_s = span_s / (self._arrivals - 1)
        end_s = self._last_s
        if self._end_events == self.events and 0 <= self._end_s - end_s <= 2 * gap_s:
            end_s = self._end_s
        return Times(prefill_s, after_first, end_s - self._first_s)

    def _sample(self, at_s: float) -> None:
        if self._arrivals == 0:
            self._first_s = at_s
        elif self._arrivals == 1:
            self._first_events, self._first_bytes = self.events, self._text_bytes
        self._samples.append((at_s, self.events))
        if len(self._samples) == MAX_SAMPLES:
            del self._samples[1::2]
            self._stride *= 2
        self._next_sample += self._stride

    def _carries(self, tokens: int) -> bool:
        if self._arrivals < 2 or self.events > MAX_EVENTS_PER_TOKEN * tokens:
            return False
        if self._text_bytes < MIN_BYTES_PER_TOKEN * tokens or self._first_share() > MAX_EARLY_SHARE:
            return False
        span_s = self._last_s - self._first_s
        gap_s = span_s / (self._arrivals - 1)
        if gap_s < MIN_GAP_S or (gap_s < PACED_GAP_S and span_s < MIN_SHARE_OF_SILENCE * self._first_s):
            return False
        border_s = self._first_s + span_s / 10
        early = next((before for at_s, before in self._samples if at_s > border_s), self._first_events)
        return early <= MAX_EARLY_SHARE * self.events

    def _is_first_long(self) -> bool:
        return self._first_bytes > LONG_FIRST_BYTES * self._first_events

    def _first_share(self) -> float:
        """Of the tokens, what came with the first arrival."""
        share = self._first_events / self.events
        return max(share, self._first_bytes / self._text_bytes) if self._is_first_long() else share
