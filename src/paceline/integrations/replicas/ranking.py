"""Which replica shall serve a request, and how: the replicas as lanes for the Router, and its decision as an order."""

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from random import Random

from msgspec import Struct

from paceline.integrations.replicas.notes import Choice, Offer
from paceline.routing.router import Router
from paceline.types import NO_CONTROL, Decision, Lane, LaneState, Request, Signals

MAX_CONVERSATIONS = 10_000
"""Whose last replica is remembered; a hash and a name each."""
WORTH_A_CACHE = 1
"""Requests more in flight that a replica may have which holds a conversation's beginning in its cache. Reading a prompt
again takes about as long as waiting for one answer, and not for more."""


class Candidate(Struct, frozen=True):
    """A replica that may serve a request."""

    name: str
    in_flight: int
    """Requests that it has, of all routers."""
    offer: Offer | None
    """``None`` before it has told any."""


class Ranking(Struct, frozen=True):
    """The order in which replicas are to be asked."""

    order: tuple[tuple[str, ...], ...]
    """Names: the first group is asked first; within a group it does not matter."""
    decision: Decision | None = None
    """``None`` where no replica has told what it offers: there was nothing to decide."""
    lanes: Mapping[str, str] = {}
    """As in :class:`Choice`."""
    fingerprint: str = ""


class Ranker:
    """Ranks replicas by a Router's decisions.

    Replicas that are alike are one engine to the Router: the one that has the least to do stands for them, or the one
    that served the conversation last. So a decision costs the same with two replicas and with two hundred.

    Args:
        router: decides, and learns.
    """

    def __init__(self, router: Router, seed: int | None = None) -> None:
        self.router = router
        self._random = Random(seed)
        self._last: OrderedDict[str, str] = OrderedDict()
        """The replica that was chosen last, by conversation; the oldest first."""

    def rank(self, request: Request, candidates: Sequence[Candidate], avoid: Sequence[str] = ()) -> Ranking:
        """Decide on a request.

        Args:
            avoid: replicas to ask last.

        Raises:
            ValueError: there are no candidates.
        """
        signals = self.router.inspect(request)
        told = [each for each in candidates if each.offer is not None and each.name not in avoid]
        alike: dict[str, list[Candidate]] = {}
        for candidate in self._by_load(told):
            assert candidate.offer is not None
            alike.setdefault(candidate.offer.fingerprint, []).append(candidate)
        others = self._by_load([each for each in candidates if each not in told])
        if not alike:
            return Ranking(_groups(others))
        for group in alike.values():
            self._prefer_last(group, signals)
        load = _load(candidates)
        engines = _engine_names(alike)
        lanes = [
            state for fingerprint, group in alike.items() for state in _states(group[0], engines[fingerprint], load)
        ]
        fingerprints = {state.lane.name: state.fingerprint for state in lanes}
        self.router.lanes = [state.lane for state in lanes]
        decision = self.router.choose(request, signals, lanes)
        by_fingerprint: dict[str, str] = {}
        for lane in (decision.lane, *decision.alternatives):
            by_fingerprint.setdefault(fingerprints[lane], lane)
        ordered = [each for fingerprint in by_fingerprint for each in alike.pop(fingerprint)]
        left = [each for group in alike.values() for each in group]
        self._remember(signals, ordered[0].name)
        return Ranking(_groups([*ordered, *left, *others]), decision, by_fingerprint, fingerprints[decision.lane])

    def _by_load(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Those with the least to do first, in a random order where they have as much; ill ones last."""

        def key(each: Candidate) -> tuple[bool, int, float]:
            return (each.offer is not None and not each.offer.is_well, each.in_flight, self._random.random())

        return sorted(candidates, key=key)

    def _prefer_last(self, group: list[Candidate], signals: Signals) -> None:
        """Put the replica first that served the conversation last, unless it is ill, or has much more to do."""
        last = self._last.get(signals.conversation) if signals.conversation else None
        for place, each in enumerate(group):
            if each.name == last and each.in_flight <= group[0].in_flight + WORTH_A_CACHE and _is_well(each):
                group.insert(0, group.pop(place))
                return

    def _remember(self, signals: Signals, name: str) -> None:
        if signals.conversation:
            self._last[signals.conversation] = name
            self._last.move_to_end(signals.conversation)
            if len(self._last) > MAX_CONVERSATIONS:
                self._last.popitem(last=False)


def choice(ranking: Ranking, router: str, number: int) -> Choice | None:
    """What the replica that comes to serve the request is told; ``None`` where there was nothing to decide."""
    decision = ranking.decision
    if decision is None:
        return None
    return Choice(
        router=router,
        number=number,
        lanes=ranking.lanes,
        fingerprint=ranking.fingerprint,
        reason=decision.reason,
        control=decision.control or NO_CONTROL,
    )


def _engine_names(alike: Mapping[str, Sequence[Candidate]]) -> dict[str, str]:
    """What the Router calls replicas that are alike, by fingerprint: as they do, where no others have that name."""
    own = {fingerprint: offer.engine for fingerprint, group in alike.items() if (offer := group[0].offer) is not None}
    times = Counter(own.values())
    return {fingerprint: name if times[name] == 1 else f"{name}-{fingerprint[:6]}" for fingerprint, name in own.items()}


def _states(candidate: Candidate, engine: str, load: Callable[[Offer], tuple[int, int]]) -> list[LaneState]:
    """The lanes of a replica."""
    offer = candidate.offer
    assert offer is not None
    running, waiting = load(offer)
    states = []
    for number, offered in enumerate(offer.lanes):
        lane = Lane(f"{engine}/{offered.name}", engine, offered.strategy, offer.device)
        state = LaneState(
            lane,
            healthy=offer.is_well,
            is_up=offer.is_well,
            running=0 if number else running,  # which lane each has is not known, and counts for the device only
            waiting=0 if number else waiting,
            fingerprint=offer.fingerprint,
            model=offer.model,
            cannot_keep=offered.cannot_keep,
            drafted_token_cost=offer.drafted_token_cost,
        )
        states.append(state)
    return states


def _load(candidates: Sequence[Candidate]) -> Callable[[Offer], tuple[int, int]]:
    """Requests that are decoded on an offer's device, and those that wait there."""
    running: dict[str, int] = {}
    waiting: dict[str, int] = {}
    for each in candidates:
        if (offer := each.offer) is not None:
            now = each.in_flight if offer.slots is None else min(each.in_flight, offer.slots)
            running[offer.device] = running.get(offer.device, 0) + now
            waiting[offer.device] = waiting.get(offer.device, 0) + each.in_flight - now
    return lambda offer: (running[offer.device], waiting[offer.device])


def _groups(candidates: Sequence[Candidate]) -> tuple[tuple[str, ...], ...]:
    return tuple((each.name,) for each in candidates)


def _is_well(candidate: Candidate) -> bool:
    return candidate.offer is not None and candidate.offer.is_well
