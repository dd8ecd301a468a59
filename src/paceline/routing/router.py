"""The core object: it chooses a lane for every request and learns from what came of it. It needs no gateway."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from time import time
from weakref import WeakValueDictionary

from msgspec.structs import replace

from paceline.decision import Knowledge, decide, learn, predict
from paceline.decision.faults import fault
from paceline.decision.load import Load
from paceline.decision.predict import foresee
from paceline.inspection import inspect, meaning
from paceline.inspection.inspect import PROCESS_KEY
from paceline.routing import store
from paceline.routing.peers import Peers
from paceline.routing.placement import NoPlace
from paceline.routing.placer import Placer
from paceline.routing.rules import fitting, in_words
from paceline.settings import RoutingSettings, Rule
from paceline.types import Decision, DraftControl, Lane, LaneState, Measured, Outcome, Prediction, Request, Signals

DECISION_FAILED = "the default lane: the decision failed"

log = logging.getLogger("paceline.routing")


class Router:
    """Chooses a lane for every request, and learns from what came of it.

    Whatever fails inside is counted in :attr:`failures`, and there is still a decision. Its methods may be called from
    any thread, and never wait for anything but :meth:`save` and :meth:`load`.

    >>> from paceline.types import Strategy
    >>> lanes = [Lane("plain", "engine", Strategy()), Lane("ngram", "engine", Strategy("ngram", 8))]
    >>> router = Router(lanes, RoutingSettings(exploration=0))
    >>> router.choose(Request.of({"prompt": "Rename x to y in this code: x = 1"})).lane
    'ngram'

    Args:
        lanes: all that there are, the default one first. They may be set anew at any time, as may the settings and the
            rules: what was learned stays.
        rules: go before all predictions; the first that fits counts.
        knowledge: what was learned before.
        seed: of the random numbers by which lanes are tried; two routers with the same seed that see the same requests
            and outcomes choose the same.
        conversation_key: of the hashes by which requests of one conversation are known, up to 64 bytes. To know
            conversations again after a restart, give the same one.
        placer: decides among engines that don't serve the same, or that a request may not go to: those of lanes whose
            state has an offer.
    """

    def __init__(
        self,
        lanes: Sequence[Lane],
        settings: RoutingSettings = RoutingSettings(),  # noqa: B008 - it is frozen
        *,
        rules: Sequence[Rule] = (),
        knowledge: Knowledge | None = None,
        seed: int | None = None,
        conversation_key: bytes = PROCESS_KEY,
        placer: Placer | None = None,
    ) -> None:
        self.lanes = lanes
        self.settings = settings
        self.rules = rules
        self.knowledge = knowledge or Knowledge()
        """What was learned so far; it changes with every outcome."""
        self.placer = placer or Placer()
        """Where requests may go, and what that costs."""
        self.peers = Peers()
        """Other routers that learn together with this one; may be set anew at any time."""
        self.failures: Counter[str] = Counter()
        """How often a part of routing failed and was done without."""
        self._random = Random(seed)
        self.conversation_key = conversation_key
        """Of the hashes of conversations and applications; may be set anew, and then those under way count as new."""
        self._in_flight: WeakValueDictionary[int, Decision] = WeakValueDictionary()
        """Decisions for which no state of the lanes was given, by identity, until they are observed or dropped."""

    def choose(
        self, request: Request, signals: Signals | None = None, lanes: Sequence[LaneState] | None = None
    ) -> Decision:
        """Decide which lane a request goes down: the one that it forces, that of the first rule that fits, or the one
        that is predicted to be the fastest, or now and then another one to learn of it.

        Args:
            signals: of the request, where it was inspected already.
            lanes: that may serve it, as they are now, the default one first. Without them it is one of
                :attr:`lanes`, all taken to be well; busy are then those whose decisions were not observed yet.

        Raises:
            ValueError: there is no lane to choose from.
            NoPlace: it may go down none of them: it is private, or what it needs is not offered, or can't be paid.
        """
        if signals is None:
            signals = self._inspected(request, self.failures)
        decision = self._decide(request, signals, lanes, self._random, self.failures)
        if lanes is None:
            self._in_flight[id(decision)] = decision
        elif decision.placed is not None:
            try:
                self.placer.begins(decision, request, signals, lanes)
            except Exception:
                note_failure(self.failures, "placement")
        return decision

    def explain(
        self, request: Request, signals: Signals | None = None, lanes: Sequence[LaneState] | None = None
    ) -> Decision:
        """What :meth:`choose` would decide now. Nothing is changed, counted, or drawn from its random numbers.

        Raises:
            ValueError, NoPlace: as :meth:`choose`.
        """
        same_numbers = Random()
        same_numbers.setstate(self._random.getstate())
        return self._decide(request, signals, lanes, same_numbers, Counter())

    def observe(self, decision: Decision, outcome: Outcome) -> None:
        """Learn from what became of a request; of one that failed, too. An outcome without a time counts as of now."""
        self._in_flight.pop(id(decision), None)
        if decision.placed is not None:
            try:
                self.placer.observe(decision, outcome)
            except Exception:
                note_failure(self.failures, "placement")
        if not decision.teaches or decision.signals is None:
            return
        if not outcome.at_s:
            outcome = replace(outcome, at_s=time())
        if self.peers.loads and (served := decision.predictions.get(outcome.lane)):
            outcome = _with_peers(outcome, self.peers.running(served.machine))
        try:
            learn(self.knowledge, decision.signals, decision, outcome)
        except Exception:
            note_failure(self.failures, "learning")

    def billed(self, decision: Decision, outcome: Outcome) -> Outcome:
        """An outcome with what it cost, as far as that is known. To be called before it is observed."""
        try:
            return outcome if decision.placed is None else self.placer.billed(decision, outcome)
        except Exception:
            note_failure(self.failures, "placement")
            return outcome

    def inspect(self, request: Request) -> Signals:
        """What a request asks for; nothing known of it where that fails."""
        return self._inspected(request, self.failures)

    def predict(
        self, signals: Signals, lanes: Sequence[LaneState], present: Sequence[LaneState] | None = None
    ) -> Mapping[str, Prediction]:
        """What is expected of each of ``lanes``, by its name.

        Args:
            present: all lanes whose load counts; by default, ``lanes``.
        """
        return predict(signals, lanes, self.knowledge, Load(present or lanes))

    def control(self, signals: Signals, lane: LaneState) -> DraftControl | None:
        """What an engine's control of drafts starts from for a request that goes down this lane; ``None`` where it has
        none. Decisions bring it for their own lane."""
        try:
            return foresee(signals, [lane], self.knowledge, Load([lane])).control(0, signals)
        except Exception:
            note_failure(self.failures, "prediction")
            return None

    def measured(self, lane: LaneState) -> Measured | None:
        """Sums over what the lane served for the model that it is for; ``None`` before the first request."""
        return self.knowledge.measured.get((lane.fingerprint or lane.lane.engine, lane.lane.name))

    def faults(self, lane: LaneState) -> list[str]:
        """What seems to be wrong with the lane's drafters, and what to do, in a line each."""
        found = []
        for drafter in lane.lane.strategy.among or (lane.lane.strategy,):
            known = self.knowledge.drafters.get((lane.fingerprint or lane.lane.engine, drafter.kind))
            if known and (line := fault(drafter.kind, known.drafted, known.accepted)):
                found.append(line)
        return found

    def save(self, path: Path | str) -> None:
        """Write what was learned to a file, in place of what stood there; created for its owner only.

        Raises:
            OSError: it can't be written; ``str()`` says why, and what to do.
        """
        store.save(Path(path), self.knowledge)

    def load(self, path: Path | str) -> None:
        """Know what was saved, and nothing else. A file that is not there holds nothing; entries that can't be read
        are left out.

        Raises:
            OSError: it is there and can't be read.
        """
        self.knowledge = store.load(Path(path))

    def merge(self, knowledge: Knowledge) -> None:
        """Also know what another router has learned. What is merged twice counts twice."""
        with self.knowledge.lock:
            self.knowledge.merge(knowledge)

    def _inspected(self, request: Request, failures: Counter[str]) -> Signals:
        try:
            return inspect(request, self.conversation_key)
        except Exception:
            note_failure(failures, "inspection")
            return Signals()

    def _decide(
        self,
        request: Request,
        signals: Signals | None,
        lanes: Sequence[LaneState] | None,
        rng: Random,
        failures: Counter[str],
    ) -> Decision:
        """Whatever fails, the default lane is left."""
        if lanes is None:
            lanes = self._present_lanes(request)
        if not lanes:
            raise ValueError("no lane to choose from")
        lanes = self.peers.beside(lanes)
        if signals is None:
            signals = self._inspected(request, failures)
        choosing = _Choosing(
            signals=signals,
            knowledge=self.knowledge,
            exploration=self.settings.exploration,
            routers=1 + self.peers.count,
            rng=rng,
            failures=failures,
        )
        if any(lane.offer is not None for lane in lanes):
            decision = self._placed(request, lanes, choosing, failures)
        else:
            decision = self._guarded(request, lanes, choosing, failures)
        return decision if request.teaches else replace(decision, teaches=False)

    def _guarded(
        self, request: Request, lanes: Sequence[LaneState], choosing: "_Choosing", failures: Counter[str]
    ) -> Decision:
        try:
            return self._routed(request, lanes, choosing)
        except Exception:
            note_failure(failures, "decision")
            return choosing.first_of(lanes, DECISION_FAILED)

    def _placed(
        self, request: Request, lanes: Sequence[LaneState], choosing: "_Choosing", failures: Counter[str]
    ) -> Decision:
        """Which engine, and only then how it decodes. What fails here lets nothing leave this machine.

        Raises:
            NoPlace: the request may go nowhere.
        """
        signals = choosing.signals
        forced = request.forced_lane
        named = [lane for lane in self._named(forced, lanes) if lane.offer is not None] if forced is not None else []
        among = named or lanes
        try:
            wanted = self.placer.wanted(request, signals, choosing.answer_tokens(among))
            pools, struck, wanted = self.placer.pools(request, signals, among, wanted)
            rule = fitting(self.rules, request, signals) if self.rules and not named else None
            ruled = [lane.lane.engine for lane in self._named(rule.lane, among) if lane.is_up] if rule else []
            decided = [(pool, self._guarded(request, pool.lanes, choosing, failures)) for pool in pools]
            return self.placer.placed(request, signals, decided, wanted, struck, ruled)
        except NoPlace:
            raise
        except Exception:
            note_failure(failures, "placement")
        staying = [lane for lane in among if lane.offer is None or not lane.offer.leaves_machine]
        if not staying:
            raise NoPlace({lane.lane.engine: "placing it failed, and it may be private" for lane in among}, "private")
        return self._guarded(request, staying, choosing, failures)

    def _routed(self, request: Request, lanes: Sequence[LaneState], choosing: "_Choosing") -> Decision:
        # 1. Of the lanes that the request forces, by a lane's name or an engine's, one that keeps what it means.
        forced = request.forced_lane
        named = self._named(forced, lanes) if forced is not None else ()
        keeping, changed = _keeping(named or lanes, meaning.asked(request))
        if named:
            note = "" if keeping else f"{', '.join(changed)} changed by its drafts; "
            return choosing.among(
                keeping or named, f"{note}the request forces this lane", f"{note}the request forces {forced}"
            )
        note = "" if forced is None else f"there is no lane {forced!a}; "

        # 2. Lanes that would change what it means are kept in reserve, unless no other is well.
        reserve: tuple[str, ...] = ()
        if changed and any(lane.healthy for lane in keeping):
            note += f"{', '.join(changed)} kept by plain decoding alone; "
            reserve = tuple(lane.lane.name for lane in lanes if lane not in keeping)
            lanes = keeping
        elif changed:
            note += f"no lane is well that keeps {', '.join(changed)}; "

        # 3. The lane of the first rule that fits, if it is up, and the others after it; else the predictions decide.
        rule = fitting(self.rules, request, choosing.signals) if self.rules else None
        ruled = [lane for lane in self._named(rule.lane, lanes) if lane.is_up] if rule else []
        if rule and ruled:
            why = f"{note}rule: {in_words(rule)}"
            decision = choosing.among(ruled, why, why)
            reserve = (*(lane.lane.name for lane in lanes if lane not in ruled), *reserve)
        else:
            # 4. Of the rest, engines of one's own before providers'.
            lanes, providers = _own_first(lanes)
            decision = choosing.predicted(lanes)
            reserve = (*providers, *reserve)
            if note:
                decision = replace(decision, reason=note + decision.reason)
        return replace(decision, alternatives=decision.alternatives + reserve) if reserve else decision

    def _named(self, name: str, lanes: Sequence[LaneState]) -> list[LaneState]:
        """Those of ``lanes`` that are meant by the name of a lane, or of an engine."""
        if any(lane.name == name for lane in self.lanes):
            return [lane for lane in lanes if lane.lane.name == name]
        engine = name.split("/")[0]
        return [lane for lane in lanes if lane.lane.engine == engine]

    def _present_lanes(self, request: Request) -> list[LaneState]:
        """All lanes, well, with the decisions in flight; what is learned of one model is not taken for another's."""
        decisions = [reference() for reference in self._in_flight.valuerefs()]  # also while other threads decide
        running = Counter(decision.lane for decision in decisions if decision is not None)
        model = request.served_model or request.model or ""
        return [
            LaneState(
                lane,
                running=running[lane.name],
                fingerprint=f"{lane.engine} {model}".rstrip(),
                model=f"{lane.device or lane.engine} {model}".rstrip(),
            )
            for lane in self.lanes
        ]


class _Choosing:
    """One choice: what is known at its moment, and where its random numbers come from."""

    def __init__(
        self,
        *,
        signals: Signals,
        knowledge: Knowledge,
        exploration: float,
        routers: int,
        rng: Random,
        failures: Counter[str],
    ) -> None:
        self.signals = signals
        self._routers = routers
        self._knowledge, self._exploration, self._random, self._failures = knowledge, exploration, rng, failures

    def among(self, lanes: Sequence[LaneState], only: str, several: str) -> Decision:
        """The only lane that may be used; or where it is an engine with several, the best of them. With the reason."""
        if len(lanes) == 1:
            return self.first_of(lanes, only)
        decision = self.predicted(lanes)
        return replace(decision, reason=f"{several}; {decision.reason}")

    def answer_tokens(self, lanes: Sequence[LaneState]) -> float:
        """The expected length of the answer."""
        return predict(self.signals, lanes[:1], self._knowledge)[lanes[0].lane.name].tokens

    def predicted(self, lanes: Sequence[LaneState]) -> Decision:
        """By the predictions. What is tried out costs time, and nobody's money."""
        exploration = 0.0 if any(lane.is_cloud for lane in lanes) else self._exploration
        try:
            return decide(self.signals, lanes, self._knowledge, self._random, exploration, self._routers)
        except Exception:
            note_failure(self._failures, "decision")
            return self.first_of(lanes, DECISION_FAILED)

    def first_of(self, lanes: Sequence[LaneState], reason: str) -> Decision:
        """The first lane, the others in reserve; with its prediction, so that its outcome is learned from."""
        first, *others = lanes
        predictions, control = {}, None
        try:
            foreseen = foresee(self.signals, [first], self._knowledge, Load([first]))
            predictions, control = foreseen.predictions, foreseen.control(0, self.signals)
        except Exception:
            note_failure(self._failures, "prediction")
        return Decision(
            first.lane.name,
            reason,
            alternatives=tuple(lane.lane.name for lane in others),
            predictions=predictions,
            signals=self.signals,
            control=control,
        )


def _own_first(lanes: Sequence[LaneState]) -> tuple[Sequence[LaneState], tuple[str, ...]]:
    """The lanes of engines of one's own, and the names of the others, where one of the former is well; else all, and
    none."""
    own = [lane for lane in lanes if not lane.is_cloud]
    if len(own) == len(lanes) or not any(lane.healthy for lane in own):
        return lanes, ()
    return own, tuple(lane.lane.name for lane in lanes if lane.is_cloud)


def _keeping(lanes: Sequence[LaneState], asked: frozenset[str]) -> tuple[Sequence[LaneState], list[str]]:
    """The lanes that keep what a request means, and what the others would change."""
    if not asked:
        return lanes, []
    keeping = [lane for lane in lanes if not asked & lane.cannot_keep]
    return keeping, sorted({name for lane in lanes for name in asked & lane.cannot_keep})


def _with_peers(outcome: Outcome, running: float) -> Outcome:
    """An outcome beside which other routers had so many requests running; what these draft is not known."""
    drafted = None if running else outcome.drafted_beside
    return replace(outcome, concurrent=outcome.concurrent + running, drafted_beside=drafted)


def note_failure(failures: Counter[str], part: str) -> None:
    """To be called where an exception is handled: a part of routing failed."""
    failures[part] += 1
    log.exception("%s failed; the request goes on without it", part)
