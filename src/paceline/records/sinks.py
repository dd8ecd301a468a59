"""Tells each of those that keep something of a request about it, guarded from one another."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping

from paceline.types import Decision, Outcome, Request, Signals

Sink = Callable[[Request, Signals, Decision, Outcome], None]
"""Takes in what became of a request. It must not block, and keeps only what :mod:`paceline.records.kept` lets it."""

log = logging.getLogger("paceline.records")


def tell_each(
    sinks: Mapping[str, Sink],
    failures: Counter[str],
    request: Request,
    signals: Signals,
    decision: Decision,
    outcome: Outcome,
) -> None:
    """Tell every sink, whatever the others do.

    Args:
        sinks: by name.
        failures: how often each has failed, by its name; counted up. The first failure of each is logged.
    """
    for name, sink in sinks.items():
        try:
            sink(request, signals, decision, outcome)
        except Exception:
            failures[name] += 1
            if failures[name] == 1:
                log.exception("%s failed; the others were told, and further failures are only counted", name)
