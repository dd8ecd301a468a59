"""A request router for Ray Serve: Paceline chooses the replica, and how it shall decode."""

import asyncio
import logging
import weakref
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from threading import Thread
from typing import Any

import msgspec
from msgspec.structs import replace
from ray.serve.config import RequestRouterConfig
from ray.serve.request_router import (
    MultiplexMixin,
    PendingRequest,
    ReplicaID,
    RequestRouter,
    RunningReplica,
)

from paceline.integrations.ray_serve.shared import DEFAULT_NAME, RayStore, SharedActor
from paceline.integrations.replicas.notes import (
    Choice,
    Offer,
    Served,
    body_at,
    fields_of,
    note_in,
    offer_in,
    request_of,
    with_note,
)
from paceline.integrations.replicas.ranking import Candidate, Ranker, choice
from paceline.routing.router import Router, note_failure
from paceline.settings import RoutingSettings, Rule, SharingSettings
from paceline.sharing import Sharer, new_origin
from paceline.types import Decision

STATISTICS_PERIOD_S = 1.0
"""How often replicas are asked what they offer. They tell it when they start; later it changes with their health."""
MAX_AWAITED = 10_000
"""Decisions whose outcome has not been told; the oldest are given up."""
NOT_GENERATING = frozenset(("embeddings", "score", "transcriptions", "tokenize", "detokenize"))
"""Methods of Ray's LLM deployments whose bodies look like those of generation requests, and are none."""
TAKE_REPORTS_S = 10.0
"""How long the shared actor is asked to wait for a report."""
RETRY_S = 1.0
"""Until an actor that could not be reached is asked again."""

log = logging.getLogger("paceline.integrations")


def router_config(**settings: Any) -> RequestRouterConfig:
    """What a deployment gives as its ``request_router_config``, to have Paceline route its requests.

    Args:
        settings: those of :meth:`PacelineRouter.initialize_state`.
    """
    return RequestRouterConfig(
        request_router_class=f"{PacelineRouter.__module__}.{PacelineRouter.__name__}",
        request_router_kwargs=settings,
        request_routing_stats_period_s=STATISTICS_PERIOD_S,
    )


class PacelineRouter(MultiplexMixin, RequestRouter):
    """Ranks replicas by what is predicted of them for the request, and has the chosen one told how to decode.

    A request is one whose argument is a body with ``messages``, ``prompt`` or ``input``: a mapping, or a model of
    pydantic's. Any other goes to the replica that has the least to do, and so does a request to replicas that tell
    nothing of themselves (:class:`PacelineReplica`). Models that are multiplexed stay on the replicas that Ray chooses.
    """

    def initialize_state(
        self,
        exploration: float = RoutingSettings().exploration,
        rules: Sequence[Mapping[str, Any]] = (),
        seed: int | None = None,
        shared: str = DEFAULT_NAME,
        interval_s: float = SharingSettings().interval_s,
    ) -> None:
        """Called by Ray Serve with the deployment's ``request_router_kwargs``.

        Args:
            exploration, rules: as in the configuration's ``[routing]`` and ``[[rule]]``.
            seed: of the random numbers by which lanes are tried.
            shared: the name of the actor over which routers share what they learn.
            interval_s: as in the configuration's ``[sharing]``.

        Raises:
            msgspec.ValidationError: a setting is wrong; the message says which.
        """
        settings = msgspec.convert({"exploration": exploration}, RoutingSettings)
        self.paceline = Router((), settings, rules=msgspec.convert(rules, tuple[Rule, ...]), seed=seed)
        """Decides and learns."""
        self.origin = new_origin()
        """This router's name among all that share."""
        self._ranker = Ranker(self.paceline, seed)
        self._shared = SharedActor(shared)
        sharing = msgspec.convert({"interval_s": interval_s}, SharingSettings)
        self._sharer = Sharer(self.paceline, RayStore(shared), self.origin, sharing)
        self._sharer.start()
        weakref.finalize(self, _stop, self._sharer).atexit = False
        self._awaited: OrderedDict[int, Decision] = OrderedDict()
        self._decisions = 0
        self._offers: dict[ReplicaID, tuple[Any, Offer | None]] = {}
        """By replica: its statistics, and what they tell."""
        self._sent: Counter[ReplicaID] = Counter()
        """Requests of this router's that a replica has, by replica."""
        self._listening: asyncio.Task[None] | None = None

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Groups of replicas in the order in which they are to be asked. Where anything here fails, all of them are one
        group, and the least busy one serves."""
        if pending_request is None:
            return [candidate_replicas]
        candidates = self._eligible(candidate_replicas, pending_request)
        try:
            return self._ranked(candidates, pending_request)
        except Exception:
            note_failure(self.paceline.failures, "ranking")
            return [candidates]

    def _eligible(self, replicas: list[RunningReplica], pending: PendingRequest) -> list[RunningReplica]:
        """Those that have a multiplexed model, or are to load it; else all."""
        pending.routing_context.should_backoff = True
        if not pending.metadata.multiplexed_model_id:
            return replicas
        ids = self.apply_multiplex_routing(pending_request=pending)
        return [replica for replica in replicas if replica.replica_id in ids] or replicas

    def _ranked(self, replicas: list[RunningReplica], pending: PendingRequest) -> list[list[RunningReplica]]:
        # 1. The request, and what was said of it before: it may be decided on again where a replica was full.
        self._listen()
        arguments = [*pending.args, *pending.kwargs.values()]
        place = body_at(arguments)
        if place is None or not replicas or pending.metadata.call_method in NOT_GENERATING:
            return [replicas]
        body = arguments[place]
        note = note_in(body)
        if isinstance(note, Choice):
            self._awaited.pop(note.number, None)
        # 2. Which replica, and how.
        by_name = {replica.replica_id.unique_id: replica for replica in replicas}
        candidates = [self._candidate(name, replica) for name, replica in by_name.items()]
        avoid = note.avoid if note is not None else ()
        ranking = self._ranker.rank(request_of(fields_of(body)), candidates, avoid)
        # 3. Tell it.
        self._decisions += 1
        told = choice(ranking, self._shared.name, self.origin, self._decisions)
        if ranking.decision is not None and told is not None:
            self._awaited[self._decisions] = ranking.decision
            if len(self._awaited) > MAX_AWAITED:
                self._awaited.popitem(last=False)
            _replace_argument(pending, place, with_note(body, replace(told, avoid=avoid)))
        return [[by_name[name] for name in group] for group in ranking.order]

    def _candidate(self, name: str, replica: RunningReplica) -> Candidate:
        """As it is now."""
        seen = self.replica_queue_len_cache.get(replica.replica_id) or 0  # of all routers, but forgotten after seconds
        in_flight = max(seen, self._sent[replica.replica_id])
        statistics = replica.routing_stats or replica.replica_metadata
        known = self._offers.get(replica.replica_id)
        if known is None or known[0] != statistics:
            known = self._offers[replica.replica_id] = statistics, offer_in(statistics)
        return Candidate(name, in_flight, known[1])

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """Called by Ray Serve when replicas come, go, or tell something new."""
        super().update_replicas(replicas)
        present = {replica.replica_id for replica in replicas}
        self._offers = {replica: known for replica, known in self._offers.items() if replica in present}
        self._sent = Counter({replica: count for replica, count in self._sent.items() if replica in present})

    def on_send_request(self, replica_id: ReplicaID) -> None:
        """Called by Ray Serve when a request goes to a replica."""
        super().on_send_request(replica_id)
        self._sent[replica_id] += 1

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        """Called by Ray Serve when a replica has refused or served a request, or failed to."""
        super().on_request_completed(replica_id, internal_request_id)
        if self._sent[replica_id] > 0:
            self._sent[replica_id] -= 1

    # Learning

    def _listen(self) -> None:
        """Take in the reports on this router's decisions, for as long as it is there."""
        if self._listening is None or self._listening.done():
            self._listening = asyncio.get_running_loop().create_task(
                _take_reports(weakref.ref(self), self._shared, self.origin), name="Paceline takes reports"
            )

    def learn(self, report: bytes) -> None:
        """Take in what became of a request."""
        try:
            served = msgspec.msgpack.decode(report, type=Served)
            decision = self._awaited.pop(served.number, None)
            if decision is not None:
                self.paceline.observe(decision, served.outcome)
        except Exception:
            note_failure(self.paceline.failures, "a replica's report")


def _stop(sharer: Sharer) -> None:
    """In a thread of its own: it may have to wait for the actor."""
    Thread(target=sharer.stop, daemon=True).start()


async def _take_reports(router: "weakref.ref[PacelineRouter]", shared: SharedActor, origin: str) -> None:
    """Until the router is gone."""
    while router() is not None:
        try:
            reports = await shared.handle.take_reports.remote(origin, TAKE_REPORTS_S)
        except Exception as error:  # whatever is wrong with the actor, requests are routed
            log.warning("what became of requests is not known for now: %s", str(error).partition("\n")[0])
            shared.forget()
            await asyncio.sleep(RETRY_S)
            continue
        if (present := router()) is not None:
            for report in reports:
                present.learn(report)
        del present


def _replace_argument(pending: PendingRequest, place: int, argument: Any) -> None:
    if place < len(pending.args):
        pending.args = [*pending.args[:place], argument, *pending.args[place + 1 :]]
    else:
        name = list(pending.kwargs)[place - len(pending.args)]
        pending.kwargs = {**pending.kwargs, name: argument}
