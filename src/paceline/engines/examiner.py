"""Finds out what an engine that has come up can do: once, and again where it could not tell, or may be another one."""

import asyncio
import logging

from paceline.engines.interface import AnyEngine, Examination, Facts, NotReady, assumed
from paceline.settings import EngineSettings
from paceline.wire.client import Client, ConnectFailed, ConnectionLost

EXAMINATION_LIMIT_S = 60.0
"""For a whole examination: a few short completions on a slow machine. Beyond that, the engine is used as it was
started."""
EXAMINE_AGAIN_AFTER_S = 60.0
"""Where the last examination could not tell, or found only what holds for now."""

log = logging.getLogger("paceline.engines")


class Examiner:
    """Examines one engine.

    Args:
        settings: what it is configured to do.
    """

    def __init__(self, engine: AnyEngine, settings: EngineSettings) -> None:
        self.abilities = assumed(settings.as_started)
        """What the engine was seen to do when it last came up."""
        self.warnings: tuple[str, ...] = ()
        """How that contradicts its configuration."""
        self._engine = engine
        self._settings = settings
        self._checked = False
        """Whether the engine that is up was compared with its configuration."""
        self._examined: tuple[object, ...] | None = None
        """What the engine was that :attr:`abilities` were last found of; ``None`` where they were not."""
        self._examine_again_s: float | None = None
        self._second_try = False
        self._kills = False
        """Whether the engine was lost while it was examined: it is not examined again."""

    def expect_another(self) -> None:
        """What comes up next may be another engine."""
        self._checked = False

    async def examine_if_due(self, client: Client, facts: Facts) -> bool:
        """Find out what an engine that has come up can do. Whatever that brings, it is up; unless it was lost over it,
        which happens once.

        Returns:
            Whether an engine that was examined before was found to do something else.

        Raises:
            ConnectFailed, ConnectionLost: it was lost.
        """
        now_s = asyncio.get_running_loop().time()
        if self._checked:
            due = self._examine_again_s is not None and now_s >= self._examine_again_s
            if not due or client.busy_connections:
                return False
        identity = (facts.build, facts.slots, facts.context_tokens, *sorted(facts.models))
        is_the_same = bool(self._settings.launch) and self._examined == identity  # launched anew by its supervisor
        if self._kills or is_the_same:
            self._checked = True
            return False
        self._examine_again_s = self._examined = None
        try:
            async with asyncio.timeout(EXAMINATION_LIMIT_S):
                examination = await self._engine.examine(client, self._settings)
            self._examined = identity
            if examination.is_provisional:
                self._examine_again_s = now_s + EXAMINE_AGAIN_AFTER_S
        except (ConnectFailed, ConnectionLost) as error:
            self._kills = True
            self._take(self._unexamined(f"it was lost when asked what it can do: {error}"))
            raise
        except Exception as error:
            if not isinstance(error, (NotReady, TimeoutError)):
                log.exception("examining %s failed", self._settings.name)
            if not self._second_try:
                self._second_try = True
                self._examine_again_s = now_s + EXAMINE_AGAIN_AFTER_S
            why = "it was too slow to tell" if isinstance(error, TimeoutError) else str(error)
            examination = self._unexamined(f"it could not be found out what it can do: {why}")
        was_up = self._checked
        changed = examination.abilities != self.abilities
        self._take(examination)
        self._checked = True
        return was_up and changed

    def _take(self, examination: Examination) -> None:
        for warning in examination.contradictions:
            if warning not in self.warnings:
                log.warning("%s: %s", self._settings.name, warning)
        self.abilities, self.warnings = examination.abilities, examination.contradictions

    def _unexamined(self, why: str) -> Examination:
        return Examination(
            abilities=assumed(self._settings.as_started), contradictions=(f"{why}; it is used as it was started",)
        )
