"""A line of each request, for who watches the terminal."""

from collections.abc import Callable

from paceline.records.record import Record

MIN_SHOWN_QUEUE_S = 0.01
"""A shorter wait for the device's turn is not worth a word."""


class Lines:
    """
    Args:
        say: told each line.
        is_wanted: whether there are to be any, at the moment.
    """

    def __init__(self, say: Callable[[str], None], is_wanted: Callable[[], bool]) -> None:
        self._say, self._is_wanted = say, is_wanted

    def record(self, record: Record, /) -> None:
        if self._is_wanted():
            self._say(line(record))


def line(record: Record) -> str:
    """What became of a request; what was not reported is left out."""
    outcome, observed = record.outcome, record.outcome.observed
    parts = [f"{outcome.status} {record.path} {outcome.lane} {outcome.total_s:.2f} s"]
    if outcome.queue_s >= MIN_SHOWN_QUEUE_S:
        parts.append(f"{outcome.queue_s:.2f} s queued")
    if observed.completion_tokens is not None:
        parts.append(f"{observed.completion_tokens} tokens")
    if observed.decode_tokens and observed.decode_s:
        parts.append(f"{observed.decode_tokens / observed.decode_s:.1f} t/s")
    if observed.drafted:
        parts.append(f"{observed.accepted}/{observed.drafted} drafts accepted")
    return ", ".join(parts) + f" | {outcome.error or record.decision.reason}"
