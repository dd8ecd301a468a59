"""Gives each of those that keep something of a request its record, guarded from one another."""

import logging
from collections import Counter

from msgspec import Struct
from msgspec.structs import replace

from paceline.records.record import Record, Sink

log = logging.getLogger("paceline.records")


class _Sink(Struct, frozen=True):
    name: str
    sink: Sink
    gets_text: bool
    gets_parameters: bool


class Sinks:
    """Several sinks as one.

    Args:
        failures: how often each has failed, by its name; counted up. The first failure of each is logged.
    """

    def __init__(self, failures: Counter[str]) -> None:
        self._failures = failures
        self._sinks: list[_Sink] = []
        self.want_text = False
        """Whether one of them is to be given the requests' bodies."""
        self.want_parameters = False
        """Whether one of them is to be given what requests ask for, and answers say of themselves, beside the text."""

    def add(self, name: str, sink: Sink, *, gets_text: bool = False, gets_parameters: bool = False) -> None:
        """Have records given to one more sink, without the text and the parameters unless it gets them."""
        self._sinks.append(_Sink(name=name, sink=sink, gets_text=gets_text, gets_parameters=gets_parameters))
        self.want_text |= gets_text
        self.want_parameters |= gets_parameters

    def record(self, record: Record) -> None:
        """Tell every sink, whatever the others do."""
        for registered in self._sinks:
            try:
                registered.sink.record(_for(registered, record))
            except Exception:
                self.note_failure(registered.name)

    def note_failure(self, name: str) -> None:
        """To be called where an exception is handled."""
        self._failures[name] += 1
        if self._failures[name] == 1:
            log.exception("%s failed; the others were told, and further failures are only counted", name)


def _for(sink: _Sink, record: Record) -> Record:
    """What this sink may see of it."""
    if record.text is not None and not sink.gets_text:
        record = replace(record, text=None)
    if record.parameters is not None and not sink.gets_parameters:
        record = replace(record, parameters=None)
    return record
