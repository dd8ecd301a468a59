"""Places requests: what it knows of the engines, of conversations and of money, for :mod:`paceline.routing.placement`
to decide by."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from math import sqrt
from weakref import ref

from msgspec import Struct
from msgspec.structs import replace

from paceline.decision.tuning import CHARS_PER_TOKEN
from paceline.inspection.needs import holds_signed_thinking, needs
from paceline.money.bill import cost_of
from paceline.money.power import Power, PowerMeter, configured_power, marginal_cost
from paceline.routing.backlog import Backlog
from paceline.routing.budgets import Book, Budgets, Held
from paceline.routing.pace import CloudPace
from paceline.routing.placement import Timed, Wanted, expected_tokens, rank, scored, strike
from paceline.routing.privacy import Privacy
from paceline.routing.quality import Quality, told_of
from paceline.routing.remembered import CacheSeen, Lesson, PaceSeen, QualityTold, Remembered
from paceline.settings import BudgetSettings, Configuration
from paceline.types import (
    CLIENT_LEFT,
    Decision,
    LaneState,
    Offer,
    Outcome,
    Placed,
    Prediction,
    Request,
    Signals,
    Terms,
    Tokens,
    engine_of,
)

FOLLOWS_A_TOOL = frozenset(("read", "wrote", "ran", "passed", "created", "failed", "not written", "assistant"))
"""Places in a tool loop, as signals name them, at which a turn goes on."""
FAILED = frozenset(("failed", "not written"))
"""Of them, those after a tool that failed."""
CACHE_S = 300.0
"""How long providers keep a prompt in their caches, at least (OpenAI's and Anthropic's documentation)."""
CACHE_SHARE = 0.5
"""Of a conversation's earlier prompt that a provider's cache holds, before it was seen: some have to be asked."""
CACHE_FADING = 0.2
"""Weight of what was seen last."""
MAX_CONVERSATIONS = 10_000
"""That are remembered."""
UNKNOWN_S_PER_TOKEN = 1 / 30
"""Of an engine of one's own, before it was measured: a guess."""
SHOWN = 3
"""Engines whose terms stand in a reason."""


class Pool(Struct, frozen=True):
    """Engines that serve the same: a cloud engine alone, or those of one's own of which nothing else was said."""

    offers: tuple[Offer, ...]
    lanes: tuple[LaneState, ...]

    @property
    def name(self) -> str:
        return self.offers[0].engine

    @property
    def is_cloud(self) -> bool:
        return self.offers[0].is_cloud


class _Turn(Struct, frozen=True):
    """What is remembered of a conversation on one engine."""

    at_s: float
    engine: str
    prompt_tokens: float
    failures: int = 0
    """Tool calls that failed in this turn of the user's."""
    is_escalated: bool = False
    """Whether this turn is placed as with ``best``."""


class _Open:
    """A request that was placed, until it is over."""

    def __init__(self, decision: Decision, offers: Mapping[str, Offer], tokens: Mapping[str, Tokens]) -> None:
        self.decision = ref(decision)
        self.offers, self.tokens = offers, tokens
        self.client: str | None = None
        self.request_id: str | None = None
        self.held: dict[str, Held] = {}
        """By engine, what its answer is expected to cost."""
        self.broken_off: list[Held] = []
        """For answers that engines broke off before they were asked again."""
        self.job: tuple[str, int | None] | None = None
        """Where it stands in the backlog."""


class Placer:
    """Decides on which engine a request is served. Its methods may be called from any thread.

    Args:
        ledger: where what was spent is kept.
        clock: in seconds, for times between requests.
    """

    def __init__(
        self,
        configuration: Configuration | None = None,
        ledger: Book | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self.budgets = Budgets(ledger)
        self.power_meter = PowerMeter(())
        """Tells the machine's power where none is configured; may be replaced."""
        self.tell: Callable[[Lesson], None] | None = None
        """Given all that is learned here, for other processes to learn it, too; called in any thread."""
        self.pace = CloudPace()
        self.quality = Quality()
        self._answered: OrderedDict[tuple[str | None, str], tuple[Offer, Signals]] = OrderedDict()
        """By the client and its name for the request, who answered it."""
        self._backlog = Backlog()
        self._lock = threading.RLock()
        self._open: dict[int, _Open] = {}
        self._turns: OrderedDict[str, _Turn] = OrderedDict()
        """By conversation, where its last turn was served."""
        self._cache_shares: dict[str, float] = {}
        self.take_up(configuration or Configuration())

    def take_up(self, configuration: Configuration) -> None:
        """Go by these settings from now on."""
        self.privacy = Privacy(configuration)
        self.settings = configuration.placement
        self.budgets.settings = configuration.budget
        self._cost, self._power = configuration.cost, configured_power(configuration.cost)
        self._engines_of_keys = {key.name: frozenset(key.engines) for key in configuration.key if key.engines}

    @property
    def power(self) -> Power | None:
        """Of the machine: as configured, or else as its meters tell; ``None`` where neither is known."""
        return self._power or self.power_meter.power

    # Before the decoding strategy is chosen

    def why_private(self, request: Request) -> str:
        """Why a request may not leave this machine; empty where it may. What can't be told may not."""
        try:
            return self.privacy.why(request)
        except Exception:
            return "whether it is could not be told"

    def why_passed_private(
        self,
        target: str,
        headers: Sequence[tuple[bytes, bytes]],
        body: bytes,
        client: str | None,
        models: Sequence[str] | None,
        is_readable: bool,
    ) -> str:
        """The same of a request that is not decided on, as :meth:`Privacy.why_passed` takes it."""
        try:
            return self.privacy.why_passed(target, headers, body, client, models, is_readable)
        except Exception:
            return "whether it is could not be told"

    def wanted(self, request: Request, signals: Signals, answer_tokens: float) -> Wanted:
        """What a request asks of the engine that serves it."""
        deadline_s = self.settings.deadline_s if request.deadline_s is None else request.deadline_s
        return Wanted(
            task=signals.task,
            private=self.why_private(request),
            is_forced=request.forced_lane is not None,
            engines=self._engines_of_keys.get(request.client or "", ()),
            needs=needs(request),
            prompt_tokens=_prompt_tokens(request, signals),
            answer_tokens=answer_tokens,
            deadline_s=deadline_s,
        )

    def pools(
        self, request: Request, signals: Signals, lanes: Sequence[LaneState], wanted: Wanted
    ) -> tuple[list[Pool], Mapping[str, str], Wanted]:
        """The engines that may serve a request, those that serve the same together; by name, why the others may not;
        and what is wanted, with the engine that signed its thinking.

        Raises:
            NoPlace: none may.
        """
        offers = {offer.engine: offer for lane in lanes if (offer := lane.offer) is not None}
        if holds_signed_thinking(request):
            wanted = replace(wanted, signer=self._signer(signals, offers.values()))

        def refuses(offer: Offer) -> str:
            return self._refuses(offer, wanted, request, signals)

        left, struck = strike(list(offers.values()), wanted, refuses)
        return _pooled(left, lanes), struck, wanted

    # When it is known what each of them would do

    def placed(
        self,
        request: Request,
        signals: Signals,
        decisions: Sequence[tuple[Pool, Decision]],
        wanted: Wanted,
        struck: Mapping[str, str],
        preferred: Collection[str] = (),
    ) -> Decision:
        """The decision of the pool that is worth it, the lanes of the others in reserve.

        Args:
            decisions: what was decided within each pool.
            preferred: engines that a client or a rule names.
        """
        # 1. What each would cost.
        now_s = self._clock()
        with self._lock:
            times = {pool.name: self._timed(pool, decision, now_s) for pool, decision in decisions}
            costs = {pool.name: self._expected_cost(pool, decision, wanted, signals) for pool, decision in decisions}
            before = self._turns.get(signals.conversation)
            kept = before if signals.turn in FOLLOWS_A_TOOL else None
            settings = self.settings
            if self._is_escalated(before, signals):
                settings = replace(settings, mode="best")
            qualities = {pool.name: self.quality.of(pool.offers[0], signals) for pool, _ in decisions}
        terms = scored([pool.offers[0] for pool, _ in decisions], times, costs, wanted, settings, qualities)

        # 2. The least of it, after what is named, what is up, and where the turn began.
        def order(entry: tuple[Pool, Decision]) -> tuple[object, ...]:
            pool = entry[0]
            engines = {offer.engine for offer in pool.offers}
            return (
                bool(preferred) and not engines & set(preferred),
                not any(lane.is_up for lane in pool.lanes),
                not any(lane.healthy for lane in pool.lanes),
                kept is not None and kept.engine not in engines,
                *rank(terms[pool.name]),
            )

        ranked = sorted(decisions, key=order)
        (pool, decision), others = ranked[0], ranked[1:]
        is_kept = kept is not None and any(offer.engine == kept.engine for offer in pool.offers) and bool(others)
        why: str = "the tool loop stays there" if is_kept else settings.mode
        if settings is not self.settings:
            why = "the last turn failed again and again"
        if preferred:
            why = "named"
        if not others:
            why = "named" if wanted.is_forced else "the only one that may serve it"
        elif all(not lane.is_up for other, _ in others for lane in other.lanes):
            why = "all others are down"
        is_held_back = bool(wanted.private) and any("private" in why for why in struck.values())
        reason = self._reason(pool, others, terms, wanted.private if is_held_back else "", why)
        reserve = tuple(lane for _, other in others for lane in (other.lane, *other.alternatives))
        return replace(
            decision,
            reason=f"{reason}; {decision.reason}" if reason else decision.reason,
            alternatives=decision.alternatives + reserve,
            placed=Placed(
                engine=engine_of(decision.lane),
                reason=reason,
                why="private, stays on this machine" if is_held_back else why,
                struck=struck,
                terms=terms,
                private=wanted.private,
            ),
        )

    def begins(self, decision: Decision, request: Request, signals: Signals, lanes: Sequence[LaneState]) -> None:
        """A request goes the way that was decided: what it is expected to cost is spent, and it is in the way of
        others."""
        offers = {offer.engine: offer for lane in lanes if (offer := lane.offer) is not None}
        prediction = decision.predictions.get(decision.lane)
        answer_tokens = prediction.tokens if prediction else 0.0
        wanted = Wanted(prompt_tokens=_prompt_tokens(request, signals), answer_tokens=answer_tokens)
        with self._lock:
            tokens = {name: self._tokens(offer, wanted, signals) for name, offer in offers.items()}
            self._forget_dropped()
            request_open = self._open[id(decision)] = _Open(decision, offers, tokens)
            request_open.client, request_open.request_id = request.client, request.id
            self._hold(request_open, engine_of(decision.lane))
            lane = next((lane.lane for lane in lanes if lane.lane.name == decision.lane), None)
            if lane is not None and prediction is not None and not offers[lane.engine].is_cloud:
                request_open.job = lane.device or lane.engine, offers[lane.engine].slots
                self._backlog.add(*request_open.job, decision, _service_s(prediction), self._clock())

    def admits(self, decision: Decision, engine: str, beside: Collection[str] = ()) -> str:
        """Why a request may not be sent to an engine that is tried in place of the chosen one, since it can't be paid
        for any more; empty where it may, and what it is expected to cost is spent.

        Args:
            beside: engines that may have to be paid as well, since it was sent there.
        """
        with self._lock:
            request_open = self._open.get(id(decision))
            if request_open is None or engine not in request_open.offers:
                return ""
            if engine in request_open.held:
                if engine not in beside:
                    return ""
                request_open.broken_off.append(request_open.held.pop(engine))
            for other in [name for name in request_open.held if name not in beside]:
                self.budgets.settle(request_open.held.pop(other), 0.0)
            return self._hold(request_open, engine)

    async def agreed(self, decision: Decision, engine: str) -> str:
        """Why a request that is admitted may not be sent all the same, since other processes have spent what was left;
        empty where it may. To be awaited behind :meth:`admits`."""
        with self._lock:
            request_open = self._open.get(id(decision))
            held = request_open.held.get(engine) if request_open else None
        if request_open is None or held is None:
            return ""
        if refused := await self.budgets.agreed(held):
            with self._lock:
                request_open.held.pop(engine, None)
        return refused

    # When it is over

    def billed(self, decision: Decision, outcome: Outcome) -> Outcome:
        """The outcome with what it cost."""
        with self._lock:
            request_open = self._open.get(id(decision))
        if request_open is None or outcome.cost is not None:
            return outcome
        engine = engine_of(outcome.lane) if outcome.lane else ""
        cost, is_estimate = self._cost_of_answer(request_open, engine, outcome)
        for lane, _ in (*outcome.cancelled, *outcome.abandoned):  # which answered nothing that tells its tokens
            other = request_open.offers.get(engine_of(lane))
            if other is not None and other.is_cloud and other.price is not None:
                cost, is_estimate = (cost or 0.0) + other.price.of(request_open.tokens[other.engine]), True
        return replace(outcome, cost=cost, cost_is_estimate=is_estimate)

    def _cost_of_answer(self, request_open: _Open, engine: str, outcome: Outcome) -> tuple[float | None, bool]:
        """What the engine that answered asks for it, and whether that is a guess; ``None`` where it asks nothing, or
        nobody knows what."""
        offer = request_open.offers.get(engine)
        if offer is None or not offer.is_cloud:
            return None, False
        has_answered = outcome.first_byte_s is not None and (outcome.status < 400 or outcome.status == CLIENT_LEFT)
        if not has_answered and outcome.observed.completion_tokens is None:
            return (0.0 if offer.price else None), False
        return cost_of(offer.price, outcome.observed, request_open.tokens[engine])

    def observe(self, decision: Decision, outcome: Outcome) -> None:
        """A request is over: what it cost is spent, and what it showed is remembered."""
        outcome = self.billed(decision, outcome)
        with self._lock:
            request_open = self._open.pop(id(decision), None)
            if request_open is None:
                return
            engine = engine_of(outcome.lane) if outcome.lane else ""
            cost = outcome.cost or 0.0  # of all that it was sent to
            for held in (*request_open.held.values(), *request_open.broken_off):
                self.budgets.settle(held, cost)
                cost = 0.0
            if cost:  # of engines before the one that answered
                self.budgets.hold(request_open.client, cost, time.time())
            if request_open.job is not None:
                self._backlog.remove(*request_open.job, decision, self._clock())
            offer = request_open.offers.get(engine)
            if offer is None or not outcome.is_whole:
                return
            if offer.is_cloud:
                self._learn(self.pace.seen(offer.engine, offer.model, outcome))
            self._remember(decision, offer, outcome, request_open.tokens[engine])
            if request_open.request_id and decision.signals is not None:
                self._answered[request_open.client, request_open.request_id] = offer, decision.signals
                if len(self._answered) > MAX_CONVERSATIONS:
                    self._answered.popitem(last=False)

    def feedback(self, request_id: str, is_good: bool, client: str | None = None) -> bool:
        """A client tells whether an answer to it was good enough. Returns whether it is known who gave it.

        Args:
            request_id: the client's name for the request.
            client: the name of its key.
        """
        with self._lock:
            if (answered := self._answered.pop((client, request_id), None)) is None:
                return False
            self._learn(told_of(*answered, is_good))
            return True

    def learn(self, lesson: Lesson) -> None:
        """Know what was learned, here or in another process."""
        with self._lock:
            match lesson:
                case PaceSeen():
                    self.pace.take_in(lesson)
                case QualityTold():
                    self.quality.take_in(lesson)
                case CacheSeen(engine, share):
                    before = self._cache_shares.get(engine, CACHE_SHARE)
                    self._cache_shares[engine] = before + CACHE_FADING * (share - before)

    def _learn(self, lesson: Lesson | None) -> None:
        """Know it, and tell."""
        if lesson is not None:
            self.learn(lesson)
            if self.tell is not None:
                self.tell(lesson)

    def remembered(self) -> Remembered:
        """What was learned of providers and models, to be kept over restarts."""
        with self._lock:
            return Remembered(self.pace.remembered(), self.quality.remembered(), dict(self._cache_shares))

    def recall(self, remembered: Remembered) -> None:
        """Know what was kept."""
        with self._lock:
            self.pace.recall(remembered.paces)
            self.quality.recall(remembered.qualities)
            self._cache_shares |= {name: share for name, share in remembered.cache_shares.items() if 0 <= share <= 1}

    def spending(self) -> list[tuple[BudgetSettings, float]]:
        """What was spent of each budget in its present period."""
        return [(budget, self.budgets.spent(budget, time.time())) for budget in self.budgets.settings]

    # What is known

    def _refuses(self, offer: Offer, wanted: Wanted, request: Request, signals: Signals) -> str:
        """Why an engine can't be paid for."""
        if not offer.is_cloud:
            return ""
        with self._lock:
            tokens = self._tokens(offer, wanted, signals)
        amount = offer.price.of(tokens) if offer.price else None
        if request.max_cost is not None:
            if amount is None:
                return "its price is not known, and x-paceline-max-cost is given"
            if amount > request.max_cost:
                return f"about {amount:.4g} is more than {request.max_cost:g} (x-paceline-max-cost)"
        return self.budgets.refuses(request.client, amount, time.time())

    def _signer(self, signals: Signals, offers: Collection[Offer]) -> str:
        """The engine whose provider signed a conversation's thinking: which served it last, or else the only one that
        it can have been."""
        turn = self._turns.get(signals.conversation)
        if turn is not None:
            return turn.engine
        clouds = [offer.engine for offer in offers if offer.is_cloud]
        return clouds[0] if len(clouds) == 1 else ""

    def _timed(self, pool: Pool, decision: Decision, now_s: float) -> Timed:
        """When a pool would have answered, by its best lane."""
        prediction = decision.predictions.get(decision.lane)
        tokens = prediction.tokens if prediction else 0.0
        offer = pool.offers[0]
        if offer.is_cloud:
            total_s, deviation = self.pace.expected_s(offer.engine, offer.model, tokens)
            return Timed(total_s, 0.0, deviation)
        lane = next((lane.lane for lane in pool.lanes if lane.lane.name == decision.lane), pool.lanes[0].lane)
        slots = next((offer.slots for offer in pool.offers if offer.engine == lane.engine), None)
        queue_s = self._backlog.wait_s(lane.device or lane.engine, slots, now_s)
        if prediction is None:
            return Timed(queue_s, queue_s)
        deviation = sqrt(prediction.spread**2 + prediction.request_spread**2)
        service_s = _service_s(prediction)
        others_s = self._backlog.others_wait_s(lane.device or lane.engine, slots, service_s, now_s)
        return Timed(queue_s + service_s, queue_s, deviation, others_s)

    def _expected_cost(self, pool: Pool, decision: Decision, wanted: Wanted, signals: Signals) -> float | None:
        """What a pool's answer would cost: by tokens, or by the power that it takes."""
        offer = pool.offers[0]
        if offer.is_cloud:
            return offer.price.of(self._tokens(offer, wanted, signals)) if offer.price else None
        prediction = decision.predictions.get(decision.lane)
        if prediction is None:
            return 0.0
        return marginal_cost(self.power, self._cost.price_per_kwh, _service_s(prediction), prediction.concurrent)

    def _tokens(self, offer: Offer, wanted: Wanted, signals: Signals) -> Tokens:
        """What is likely to be billed, with what the provider's cache is taken to hold."""
        turn = self._turns.get(signals.conversation)
        is_warm = turn is not None and turn.engine == offer.engine and self._clock() - turn.at_s < CACHE_S
        cached = 0.0
        if turn is not None and is_warm and offer.is_cloud and signals.turns > 1:
            cached = self._cache_shares.get(offer.engine, CACHE_SHARE) * turn.prompt_tokens
        return expected_tokens(wanted, cached)

    def _hold(self, request_open: _Open, engine: str) -> str:
        """Spend what an engine's answer is expected to cost. Returns why that can't be paid, and nothing is spent;
        empty where it can."""
        offer = request_open.offers.get(engine)
        if offer is None or not offer.is_cloud:
            return ""
        amount = offer.price.of(request_open.tokens[engine]) if offer.price else None
        held = self.budgets.hold_if_left(request_open.client, amount, time.time())
        if isinstance(held, str):
            return held
        request_open.held[engine] = held
        return ""

    def _remember(self, decision: Decision, offer: Offer, outcome: Outcome, expected: Tokens) -> None:
        """Where a conversation was served, and what the provider's cache held of it."""
        signals = decision.signals
        if signals is None or not signals.conversation:
            return
        observed = outcome.observed
        prompt = (observed.prompt_tokens or 0) + (observed.cached_tokens or 0) or expected.fresh + expected.cached
        before = self._turns.pop(signals.conversation, None)
        if before and before.engine == offer.engine and before.prompt_tokens and observed.cached_tokens is not None:
            self._learn(CacheSeen(offer.engine, min(1.0, observed.cached_tokens / before.prompt_tokens)))
        failures = before.failures if before and signals.turn in FOLLOWS_A_TOOL else 0
        self._turns[signals.conversation] = _Turn(
            self._clock(),
            offer.engine,
            prompt,
            failures + (signals.turn in FAILED),
            self._is_escalated(before, signals),
        )
        if len(self._turns) > MAX_CONVERSATIONS:
            self._turns.popitem(last=False)

    def _forget_dropped(self) -> None:
        """Requests that nobody told the end of, so that their decisions are gone; what they held stays spent."""
        if len(self._open) % 64 == 63:
            for key in [key for key, request_open in self._open.items() if request_open.decision() is None]:
                del self._open[key]

    def _is_escalated(self, before: _Turn | None, signals: Signals) -> bool:
        """Whether a turn is placed as with ``best``: the one before failed again and again, or it has begun so."""
        if before is None or not self.settings.escalate_after:
            return False
        if signals.turn in FOLLOWS_A_TOOL:
            return before.is_escalated
        return before.failures >= self.settings.escalate_after

    def _reason(
        self,
        pool: Pool,
        others: Sequence[tuple[Pool, Decision]],
        terms: Mapping[str, Terms],
        private: str,
        why: str,
    ) -> str:
        """In a few words; empty where there was nothing to decide.

        Args:
            private: why it may not go to others; empty where it may, or where there are none.
        """
        parts = [f"private ({private}), stays on this machine"] if private else []
        if not others:
            return "; ".join(parts)
        shown = [pool.name, *(other.name for other, _ in others)][:SHOWN]
        parts.append(
            f"{pool.name} ({why}): " + ", ".join(_in_words(name, terms[name], self._cost.currency) for name in shown)
        )
        return "; ".join(parts)


def _prompt_tokens(request: Request, signals: Signals) -> float:
    """An estimate: tools and schemas are prompt, too, and pictures are not as long as they look."""
    return max(signals.prompt_chars, 0 if signals.images else len(request.body)) / CHARS_PER_TOKEN


def _service_s(prediction: Prediction) -> float:
    """What an answer takes once its turn has come."""
    s_per_token = prediction.s_per_token
    return prediction.prefill_s + prediction.tokens * (UNKNOWN_S_PER_TOKEN if s_per_token is None else s_per_token)


def _pooled(offers: Sequence[Offer], lanes: Sequence[LaneState]) -> list[Pool]:
    """In the order of the lanes."""
    by_key: dict[object, list[Offer]] = {}
    for offer in offers:
        by_key.setdefault(_pool_key(offer), []).append(offer)
    pools = []
    for alike in by_key.values():
        names = {offer.engine for offer in alike}
        own = tuple(lane for lane in lanes if lane.offer is not None and lane.offer.engine in names)
        pools.append(Pool(tuple(alike), own))
    return pools


def _pool_key(offer: Offer) -> object:
    if offer.is_cloud:
        return offer.engine
    return offer.quality, tuple(sorted(offer.quality_by_task.items())), offer.model if offer.quality else ""


def _in_words(name: str, terms: Terms, currency: str) -> str:
    cost = "price unknown" if terms.cost is None else f"{terms.cost:.2g} {currency}"
    words = f"{name} {terms.time_s:.1f} s, {cost}"
    if terms.poor:
        words += f", poor {terms.poor:.2f}"
    return words if terms.late is None else f"{words}, late {terms.late:.2f}"
