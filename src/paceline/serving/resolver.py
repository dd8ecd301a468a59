"""Which lanes serve a request: by its model's name, and by what one engine alone keeps."""

import asyncio
from collections.abc import Callable, Sequence
from time import perf_counter

from msgspec.structs import replace

from paceline.serving.fleet import Fleet
from paceline.serving.handles import LaneHandle
from paceline.serving.names import Served
from paceline.serving.stored import StoredIds, stored_before
from paceline.types import Api, Request

START_PATIENCE_S = 60.0
"""How long a request waits for an engine that is starting, when none of its lanes is up. Loading a model from a disk
takes up to a minute; longer than that, clients give up by themselves."""


class Resolver:
    """Looks up what requests name, in the fleet that is in force, and waits for engines that are starting.

    Args:
        fleet: may be replaced.
    """

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.stored_ids = StoredIds()

    async def served(self, request: Request, why_private: Callable[[Request], str]) -> Served:
        """What serves the request: the lanes that its model's name stands for, or of these those of the engine that
        keeps what the request goes on with. If none of them is up but one is coming up, it is waited for.

        Args:
            why_private: why a request may not leave this machine, by the rules that are in force when it is asked.

        Raises:
            UnknownLane, UnknownModel: nothing does.
        """
        served = self._known(request)
        if served is None:  # a name that nobody knows: the engines are asked once more
            await self.fleet.look_again()
            served = self._named(request)
        if self.fleet.is_coming(served.lanes):
            await self.wait_for_start(lambda: self._named(request).lanes)
            served = self._known(request) or self.fleet.for_unknown(request.model or "", has_waited=True)
        if request.api is Api.OPENAI_RESPONSES and (stored := stored_before(request)) is not None:
            stays = bool(why_private(request) or (served.model and served.model.private))
            engines = list(
                {
                    lane.engine.name: lane.engine
                    for lane in served.lanes
                    if not (stays and lane.engine.settings.leaves_machine)
                }.values()
            )
            keeper = await self.stored_ids.find(stored, engines)
            lanes = tuple(lane for lane in served.lanes if lane.engine.name == keeper)
            served = replace(served, lanes=lanes or served.lanes)
        return served

    def start_patience_s(self, since_s: float) -> float:
        """How long a request may still wait for an engine that starts.

        Args:
            since_s: when it began to be looked up, by :func:`time.perf_counter`.
        """
        return START_PATIENCE_S - (perf_counter() - since_s)

    async def wait_for_start(self, lanes: Callable[[], Sequence[LaneHandle]], patience_s: float | None = None) -> None:
        """Wait until one of the lanes is up, or none is coming any more; also over a reload, which may bring others.

        Args:
            patience_s: the longest wait, where ``server.queue_timeout_s`` is not shorter; by default all that a request
                has.
        """
        limit_s = min(
            START_PATIENCE_S if patience_s is None else patience_s, self.fleet.configuration.server.queue_timeout_s
        )
        try:
            async with asyncio.timeout(limit_s), self.fleet.changed:
                await self.fleet.changed.wait_for(lambda: not self.fleet.is_coming(lanes()))
        except TimeoutError:
            return

    def _known(self, request: Request) -> Served | None:
        """What a request's model stands for; ``None`` where nobody knows it."""
        if request.forced_lane is not None:
            return self.fleet.forced(request.forced_lane, request.model)
        return self.fleet.find(request.model)

    def _named(self, request: Request) -> Served:
        """What a request's model stands for, or what serves unknown names."""
        return self._known(request) or self.fleet.for_unknown(request.model or "")
