"""A provider's limits, as its answers tell them: until when nothing more is to be sent to it.

Sources: RFC 9110, section 10.2.3 (Retry-After); the pages on rate limits of OpenAI (``x-ratelimit-*``, spans such as
``6m0s``), Anthropic (``anthropic-ratelimit-*``, times by RFC 3339) and OpenRouter (``x-ratelimit-*`` alone, times in
milliseconds since 1970).
"""

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from time import monotonic, time

from paceline.wire.headers import Headers

DEFAULT_PAUSE_S = 2.0
"""After a 429 that does not say how long: as a client's SDK waits before its second try."""
MAX_PAUSE_S = 3600.0
"""A limit for the day is tried again after an hour: it may have been raised."""
TOLD_WITH = (429, 503, 529)
"""Statuses with which ``Retry-After`` tells of a limit, or of too much load."""
_KINDS = ("requests", "tokens", "input-tokens", "output-tokens")
_SPAN = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")


class Limits:
    """The limits of one provider."""

    def __init__(self) -> None:
        self._until_s = 0.0
        """By a clock that nobody sets."""
        self.problem = ""
        """What it said, in words for people."""

    def left_s(self) -> float:
        """How long nothing is to be sent to it; 0 where it may be asked."""
        return max(0.0, self._until_s - monotonic()) if self._until_s else 0.0

    @property
    def is_reached(self) -> bool:
        """Whether it is to be left out now."""
        return self._until_s > 0.0 and self._until_s > monotonic()

    def note(self, status: int, headers: Headers) -> None:
        """Take in an answer's status and headers."""
        now_s = time()
        named = {name.lower().decode("latin-1"): value.decode("latin-1") for name, value in headers}
        pause_s, problem = 0.0, ""
        if status in TOLD_WITH:
            told_s = _retry_after_s(named, now_s)
            if told_s is not None or status == 429:
                pause_s = DEFAULT_PAUSE_S if told_s is None else told_s
                problem = f"answered {status}"
        spent_s, kind = _spent_s(named, now_s)
        if spent_s > pause_s:
            pause_s, problem = spent_s, f"its limit of {kind} is reached"
        if pause_s > 0:
            self._until_s, self.problem = max(self._until_s, monotonic() + min(pause_s, MAX_PAUSE_S)), problem


def _retry_after_s(named: dict[str, str], now_s: float) -> float | None:
    """How long is to be waited; ``None`` where that is not said."""
    milliseconds, value = named.get("retry-after-ms", ""), named.get("retry-after", "")
    if re.fullmatch(r"\d{1,9}(\.\d+)?", milliseconds):
        return float(milliseconds) / 1000
    if re.fullmatch(r"\d{1,9}(\.\d+)?", value):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now_s)
    except (ValueError, OverflowError):
        return None


def _spent_s(named: dict[str, str], now_s: float) -> tuple[float, str]:
    """How long until the limits of which nothing remains begin anew, and of what the longest one is."""
    longest_s, of = 0.0, ""
    for kind in _KINDS:
        for remaining, reset in (
            (f"x-ratelimit-remaining-{kind}", f"x-ratelimit-reset-{kind}"),
            (f"anthropic-ratelimit-{kind}-remaining", f"anthropic-ratelimit-{kind}-reset"),
        ):
            if named.get(remaining) == "0" and (left_s := _left_s(named.get(reset, ""), now_s)) > longest_s:
                longest_s, of = left_s, kind
    if named.get("x-ratelimit-remaining") == "0":
        left_s = _left_s(named.get("x-ratelimit-reset", ""), now_s)
        if left_s > longest_s:
            longest_s, of = left_s, "requests"
    return longest_s, of


def _left_s(reset: str, now_s: float) -> float:
    """Until a reset that is told as a span, a time, or a number of seconds or milliseconds; 0 where it can't be
    told."""
    if re.fullmatch(r"\d{1,16}(\.\d+)?", reset):
        number = float(reset)
        if number > 1e12:
            return max(0.0, number / 1000 - now_s)
        return max(0.0, number - now_s) if number > 1e9 else number
    if reset and (span := _SPAN.fullmatch(reset)):
        days, hours, minutes, seconds, milliseconds = (float(part or 0) for part in span.groups())
        return ((days * 24 + hours) * 60 + minutes) * 60 + seconds + milliseconds / 1000
    try:
        until = datetime.fromisoformat(reset)
    except ValueError:
        return 0.0
    return max(0.0, (until if until.tzinfo else until.replace(tzinfo=UTC)).timestamp() - now_s)
