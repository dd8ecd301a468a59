"""Finds out what an engine that has come up can do: once, and again where it could not tell, or may be another one."""

import asyncio
import logging

from paceline.engines.interface import Engine, Examination, Facts, NotReady
from paceline.engines.meaning import assumed
from paceline.types import Strategy
from paceline.wire.client import Client, ConnectFailed, ConnectionLost

EXAMINATION_LIMIT_S = 60.0
"""Then it is used as it was started."""
EXAMINE_AGAIN_AFTER_S = 60.0

log = logging.getLogger("paceline.processes")


class Examiner:
    """Examines one engine.

    Args:
        name: for logs.
        strategy: what the engine is configured to do, for checking that it does.
        draft_model: the model that requests may be drafted with, where the engine takes it from each request.
        is_launched: whether the engine is started by its supervisor, so that one that looks the same is the same.
    """

    def __init__(
        self, name: str, engine: Engine, strategy: Strategy, draft_model: str | None, *, is_launched: bool
    ) -> None:
        self.abilities = assumed(strategy)
        """What the engine was seen to do when it last came up."""
        self.warnings: tuple[str, ...] = ()
        """How that contradicts its configuration."""
        self._name = name
        self._engine = engine
        self._strategy = strategy
        self._draft_model = draft_model
        self._is_launched = is_launched
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
        what = (facts.build, facts.slots, facts.context_tokens, *sorted(facts.models))
        if self._kills or (self._is_launched and self._examined == what):
            self._checked = True
            return False
        self._examine_again_s = self._examined = None
        try:
            async with asyncio.timeout(EXAMINATION_LIMIT_S):
                seen = await self._engine.examine(client, self._strategy, self._draft_model)
            self._examined = what
            if seen.is_provisional:
                self._examine_again_s = now_s + EXAMINE_AGAIN_AFTER_S
        except (ConnectFailed, ConnectionLost) as error:
            self._kills = True
            self._found(self._unexamined(f"it was lost when asked what it can do: {error}"))
            raise
        except Exception as error:
            if not isinstance(error, (NotReady, TimeoutError)):
                log.exception("examining %s failed", self._name)
            if not self._second_try:
                self._second_try = True
                self._examine_again_s = now_s + EXAMINE_AGAIN_AFTER_S
            why = "it was too slow to tell" if isinstance(error, TimeoutError) else str(error)
            seen = self._unexamined(f"it could not be found out what it can do: {why}")
        was_up = self._checked
        changed = seen.abilities != self.abilities
        self._found(seen)
        self._checked = True
        return was_up and changed

    def _found(self, seen: Examination) -> None:
        for warning in seen.contradictions:
            if warning not in self.warnings:
                log.warning("%s: %s", self._name, warning)
        self.abilities, self.warnings = seen.abilities, seen.contradictions

    def _unexamined(self, why: str) -> Examination:
        return Examination(assumed(self._strategy), (f"{why}; it is used as it was started",))
