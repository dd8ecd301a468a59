"""What a gateway keeps over its restarts and gives away, as its configuration wants it."""

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

from paceline.configuration import ConfigurationError
from paceline.paths import DECISION_LOG, KNOWLEDGE, LEDGER
from paceline.records.decision_log import DecisionLog, LogSettings
from paceline.records.secret import KEY_BYTES, conversation_key, keep_key
from paceline.records.traces import NoTraces, Traces
from paceline.routing.budgets import Book, Ledger
from paceline.routing.placer import Placer
from paceline.routing.router import Router
from paceline.routing.store import Knowledge, Memory
from paceline.serving.pipeline import Pipeline
from paceline.settings import Configuration, EvidenceSettings


class Storage:
    """What was learned, the decision log, the key by which conversations are known again; and the spans of requests.

    Args:
        directory: for its files; ``None`` keeps nothing.
        book: where what is spent is kept, if that is not a file of this process.

    Raises:
        ConfigurationError: spans are wanted, and what makes them is not installed.
    """

    def __init__(self, configuration: Configuration, directory: Path | None, book: Book | None = None) -> None:
        evidence = configuration.evidence
        self._directory = directory
        self._keeps_text = evidence.keep_text
        self._traces = _traces(evidence)
        self._memory = Memory(directory / KNOWLEDGE) if directory and configuration.routing.remember else None
        self.log = _log(evidence, directory) if directory and evidence.log else None
        """The decision log, if one is kept."""
        self.ledger = book or (Ledger(directory / LEDGER) if directory else None)
        """What was spent on cloud engines."""
        self.conversation_key = conversation_key(directory)

    async def knowledge(self) -> Knowledge | None:
        """What was learned before; ``None`` where that is not kept."""
        return await asyncio.to_thread(self._memory.load) if self._memory else None

    def listen_to(self, pipeline: Pipeline) -> None:
        """Be given its records."""
        if self.log:
            pipeline.sinks.add("log", self.log, gets_text=self._keeps_text)
        if self._traces:
            pipeline.sinks.add("traces", self._traces, gets_parameters=True)
            self._traces.address_of = lambda lane: _address_of(pipeline, lane)

    def keep_key(self, key: bytes) -> None:
        """Know conversations by the key that several gateways have in common, also after a restart."""
        if len(key) == KEY_BYTES:
            keep_key(self._directory, key)

    async def recall(self, placer: Placer) -> None:
        """Have placement know what it learned before."""
        if self._memory:
            placer.recall(await asyncio.to_thread(self._memory.load_placement))

    async def save(self, router: Router) -> None:
        """Write what was learned, in a thread: a slow disk keeps no request waiting, a full one stops none."""
        if self._memory:
            await asyncio.to_thread(self._memory.save, router.knowledge)
            await asyncio.to_thread(self._memory.save_placement, router.placer.remembered())

    async def close(self) -> None:
        """Write what waits, and let go of the files."""
        for opened in (self._memory, self.log, self._traces, self.ledger):
            if opened:
                await asyncio.to_thread(opened.close)


def _log(evidence: EvidenceSettings, directory: Path) -> DecisionLog:
    limits = LogSettings(keep_days=evidence.keep_days, max_bytes=evidence.max_mb * 1_000_000)
    return DecisionLog(directory / DECISION_LOG, limits)


def _traces(evidence: EvidenceSettings) -> Traces | None:
    try:
        return Traces(evidence.traces) if evidence.traces else None
    except NoTraces as error:
        raise ConfigurationError(str(error)) from error


def _address_of(pipeline: Pipeline, lane: str) -> tuple[str, int] | None:
    """Of the engine behind a lane, if that is known."""
    handle = pipeline.fleet.lanes.get(lane)
    url = urlsplit(handle.engine.supervisor.url or "") if handle else None
    return (url.hostname, url.port or 80) if url and url.hostname else None
