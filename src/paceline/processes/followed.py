"""An engine that another process of ours looks after: this one uses it, and looks at it for itself."""

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from paceline.processes.supervisor import DOWN_INTERVAL_S, Health, Supervisor
from paceline.wire.client import Client


class EngineState(Struct, frozen=True, kw_only=True):
    """Of an engine, as the process that looks after it tells."""

    health: Health = Health.STARTING
    problem: str | None = "not started yet"
    url: str | None = None
    api_key: str | None = None
    """That of the present start."""
    pid: int | None = None
    restarts: int = 0
    is_coming: bool = True


def state_of(supervisor: Supervisor) -> EngineState:
    """To be told to those that follow it."""
    return EngineState(
        health=supervisor.health,
        problem=supervisor.problem,
        url=supervisor.url,
        api_key=supervisor.api_key,
        pid=supervisor.pid,
        restarts=supervisor.restarts,
        is_coming=supervisor.is_coming,
    )


class FollowedEngine(Supervisor):
    """An engine that is launched elsewhere. It starts nothing and ends nothing: it connects to what it is told, and
    looks at that as at an engine that runs anyway.

    Args:
        look: asks the process that launched it to look at it at once.
    """

    def __init__(self, *positional: Any, look: Callable[[], None], **named: Any) -> None:
        super().__init__(*positional, **named)
        self._state = EngineState()
        self._ask_for_a_look = look

    def follow(self, state: EngineState) -> None:
        """Take up how it is."""
        self._state = state
        self.restarts = state.restarts
        self._look_now.set()

    @property
    def pid(self) -> int | None:
        return self._state.pid

    @property
    def is_coming(self) -> bool:
        """One that is up where it is looked after is so here as soon as this process has looked, too."""
        return self.health is not Health.UP and (self._state.is_coming or self._state.health is Health.UP)

    def report_failure(self, problem: str) -> None:
        self._ask_for_a_look()
        super().report_failure(problem)

    def suspect(self, problem: str) -> None:
        self._ask_for_a_look()
        super().suspect(problem)

    def _may_be_busy(self, client: Client, is_working: bool) -> bool:
        """Whether its process works is seen only where it is looked after."""
        return self._state.health is Health.UP or super()._may_be_busy(client, is_working)

    async def _keep_running(self) -> None:
        connected: tuple[str | None, int | None] = (None, None)
        while True:
            self._look_now.clear()
            state = self._state
            if state.url is not None and connected != (state.url, state.pid):
                connected = (state.url, state.pid)
                self.url, self.api_key = state.url, state.api_key
                self.client = self._connect(state.url)
                self._examiner.expect_another()
                self._set(Health.STARTING, "starting")
            if state.health is Health.UP:
                await self._look(when_down=Health.DOWN if self._was_up else Health.STARTING)
            else:
                self._not_up(state.health, state.problem or "not up", may_be_another=False)
            if state is self._state:
                await self._pause(None if self.health is Health.UP else DOWN_INTERVAL_S)
