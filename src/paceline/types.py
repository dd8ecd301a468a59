"""The nouns of Paceline. Read this file first.

Data flows through the gateway as::

    Request -> Signals -> Decision -> (bytes) -> Outcome

Every type is immutable. Numbers carry their unit in the name (``_s``, ``_bytes``); a number that nobody
reported is ``None``, never zero.
"""

from collections.abc import Mapping
from enum import StrEnum
from math import inf
from typing import Any

from msgspec import Struct, field
from msgspec.structs import force_setattr


class Api(StrEnum):
    """The dialect a request speaks; it decides the shape of errors and where text and counts stand."""

    OPENAI_CHAT = "openai-chat"
    OPENAI_COMPLETIONS = "openai-completions"
    OPENAI_RESPONSES = "openai-responses"
    ANTHROPIC_MESSAGES = "anthropic-messages"
    LLAMA_CPP = "llama.cpp"


class Request(Struct, frozen=True):
    """A generation request as the client sent it.

    ``body`` holds the bytes that go to the engine; ``fields`` is the same body parsed, for reading only.
    """

    api: Api
    path: str
    body: bytes
    fields: Mapping[str, Any]
    model: str | None = None
    """The model the client named; ``None`` when it named none."""
    stream: bool = False
    forced_lane: str | None = None
    """The lane named in the request header ``x-paceline-lane``."""
    id: str | None = None
    """The request header ``x-request-id``."""
    teaches: bool = True
    """Whether its outcome is learned from; not with the request header ``x-paceline-learn: no``."""
    trace: str | None = None
    """The request header ``traceparent`` (https://www.w3.org/TR/trace-context/)."""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """As the client sent them, names in lower case."""
    served_model: str | None = None
    """The name under which the model that serves it is listed; ``None`` where it is not known. Records keep this one,
    never what the client wrote."""
    client: str | None = None
    """The name of the client's key; ``None`` where no key is asked for."""
    address: str = ""
    """Of the client."""
    private: str = ""
    """Why it may not leave this machine, as far as that is known: at first, by the request header
    ``x-paceline-private: yes``."""
    cleared_by: object = None
    """The rules by which it was looked at, so that they don't search it again: unless it is private, it may leave this
    machine by them."""
    deadline_s: float | None = None
    """Seconds from its arrival in which its answer is wanted, by the request header ``x-paceline-deadline-ms``."""
    max_cost: float | None = None
    """The most that its answer may cost, by the request header ``x-paceline-max-cost``."""
    elided_chars: int = 0
    """Of the largest bodies ``fields`` holds the beginning and the end; so much is left out."""

    @classmethod
    def of(cls, fields: Mapping[str, Any], model: str | None = None, api: Api = Api.OPENAI_CHAT) -> "Request":
        """A request to decide on, where somebody else sends it: ``fields`` are those of its body."""
        return cls(api=api, path="", body=b"", fields=fields, model=model)


class Task(StrEnum):
    """What a request asks for, as far as it matters to drafting."""

    __hash__ = str.__hash__
    """Enum's own is written in Python, and tasks are looked up a lot: inspecting is a tenth quicker with this one."""
    CODE = "code"
    EDIT = "edit"
    EXTRACT = "extract"
    TOOL_CALL = "tool-call"
    MATH = "math"
    REASON = "reason"
    ANSWER = "answer"
    RETRIEVE = "retrieve"
    SUMMARISE = "summarise"
    TRANSLATE = "translate"
    CHAT = "chat"
    CREATE = "create"
    UNKNOWN = "unknown"
    """It can't be told; what such requests are like is learned by who sends them."""


class Signals(Struct, frozen=True):
    """What inspection found in a request."""

    tasks: Mapping[Task, float] = field(default_factory=lambda: {Task.ANSWER: 1.0})
    """Probability of each task that may be meant, the likeliest first; they sum to 1."""
    evidence: str = ""
    """What else than the words told the task: ``"json_schema"``, ``"tools"``; empty where only the words did."""
    structure: str = ""
    """The field that demands a structured answer: ``"response_format json_schema"``, ``"tool_choice"``."""
    copy: float = 0.0
    """Share of the answer, 0 to 1, that is likely to stand in the prompt already."""
    prompt_chars: int = 0
    """Characters of text in the prompt; images and other binary parts are not counted."""
    given_chars: int = 0
    """Characters of given text that the answer may copy from: pasted text, tool results, earlier answers."""
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    reasoning: bool | None = None
    """Whether thinking before the answer is asked for; ``None`` where the request does not say."""
    language: str = ""
    """Language of what is asked, by ISO 639-1 code; empty where it can't be told."""
    images: bool = False
    """Whether the prompt holds images, audio or files."""
    agent: str = ""
    """The agent framework by its telltales; ``"unnamed"`` where only tool results give it away."""
    turns: int = 1
    """Messages of the user, tool results not counted."""
    conversation: str = ""
    """Keyed hash of what names the conversation, or else of how it began; the same for all its turns."""
    conversation_is_named: bool = False
    """Whether the client gave the conversation an identifier, on which the hash then stands."""
    application: str = ""
    """Keyed hash of what stays the same in a program's requests: the beginning of its system prompt, names of tools,
    schema, API, key; empty where nothing tells."""
    turn: str = ""
    """What the answer follows, by ``inspection/loop.py``: the ``"first"`` or a later message of the ``"user"``; a tool
    that ``"read"``, ``"wrote"``, ``"ran"``, ``"passed"``, ``"created"``, ``"failed"`` or has ``"not written"``; a bare
    ``"prompt"``; its own beginning, ``"assistant"``. Empty where nobody looked."""
    repeats: float = 0.0
    """Share, 0 to 1, of what the conversation said last that it had said before, by a few probes of the last message
    and the answers before it (``inspection/repeats.py``): 0.4 is usual, and the more, the more n-gram lookups find. 0
    where there is no earlier answer, which is where they find the least, and where nobody looked."""

    @property
    def task(self) -> Task:
        """The likeliest task."""
        return next(iter(self.tasks))


class Strategy(Struct, frozen=True, cache_hash=True):
    """How an engine drafts."""

    kind: str = "autoregressive"
    """``autoregressive``, ``ngram``, ``ngram-mod``, ``draft``, ``eagle3``, ``mtp`` ..."""
    n_max: int | None = None
    """Cap on the draft length in tokens; ``None`` leaves it to the engine."""
    among: tuple["Strategy", ...] = ()
    """Where the engine's control decides at each step whether to draft, by which drafter and how far: the drafters that
    it may use, each with its longest draft; ``kind`` is then that of the only one, or :data:`ALL`. Empty where nothing
    is decided while the answer is made."""

    @property
    def drafts(self) -> bool:
        return self.kind != "autoregressive" and self.n_max != 0

    @property
    def name(self) -> str:
        """Short and fit for a lane's name: ``plain``, ``ngram-8``."""
        if not self.drafts:
            return "plain"
        return self.kind if self.n_max is None else f"{self.kind}-{self.n_max}"

    def __str__(self) -> str:
        return self.kind if self.n_max is None else f"{self.kind} n_max={self.n_max}"


ALL = "all"
"""Kind of a strategy whose control may use any of several drafters."""


class Drafter(Struct, frozen=True):
    """A drafter that requests to an engine can ask for."""

    kind: str
    """As in :class:`Strategy`."""
    name: str
    """The engine's own name for it."""
    n_max: int | None
    """Longest draft it makes, in tokens; ``None`` where requests can't choose its length."""
    for_model: str = ""
    """The one model that it drafts for; empty for whatever the engine serves."""
    p_min: float | None = None
    """Probability of a token below which its draft is to end; ``None`` for what the engine was started with."""


class DrafterControl(Struct, frozen=True):
    """What an engine's control of one drafter starts from."""

    costs: tuple[float, ...]
    """Of a step that verifies 1, 2 ... drafted tokens, drafting included, in plain steps, under the present load."""
    acceptance: tuple[float, ...]
    """Probability that the first, second ... token of a draft is accepted, given that those before it were."""
    by_match: Mapping[int, tuple[float, ...]] = {}
    """The same of a lookup whose match has so many tokens, or more; empty where the match tells nothing."""
    weight: float = 0.0
    """Drafted tokens of the request itself that the acceptance counts for."""


class DraftControl(Struct, frozen=True):
    """What an engine that decides for each step whether to draft, with which drafter and how far starts from."""

    min_yield: float = 0.0
    """Tokens per verification step below which drafting is slower than none, as far as is known; else 0."""
    drafters: Mapping[str, DrafterControl] = {}
    """By kind, as in :class:`Strategy`; empty where not enough is known."""


NO_CONTROL = DraftControl()


UNKNOWN_DRAFTER = "unknown"
"""The kind of a drafter of which no more was seen than that it drafts."""
LOGPROBS = frozenset({"logprobs", "top_logprobs", "n_probs"})
"""Request fields that ask for the probabilities of tokens: the commonest of those whose meaning drafting may change."""


class Abilities(Struct, frozen=True):
    """What an engine was seen to do at a request's wish."""

    drafters: tuple[Drafter, ...] = ()
    """Empty: every request is decoded as the engine was started."""
    not_when_drafting: frozenset[str] = frozenset()
    """Names of request fields (``inspection/meaning.py``) whose meaning drafting changes on this engine, or that it
    refuses while it drafts."""
    as_seen: Strategy | None = None
    """What it was seen to do with a request that says nothing; ``None`` where that is what its settings say, as far as
    was seen."""
    controls_drafts: bool = False
    """Whether it decides at each step of a request whether to draft, with which of the drafters and how far."""
    decodes_apart: bool = False
    """Whether it decodes requests whose drafts have different lengths one after the other, as far as it tells."""

    def strategies(self, caps: tuple[int, ...] = ()) -> list[Strategy]:
        """Those worth choosing among: none, and each drafter at each cap that it can reach; by default its longest
        draft, the half of it, a quarter and an eighth. Where the engine controls drafts, each drafter up to the largest
        cap, and all of them together. Empty where there is no choice."""
        if not self.drafters:
            return []
        if self.controls_drafts:
            return self._controlled(max(caps, default=None))
        strategies = [Strategy()]
        for drafter in self.drafters:
            longest = drafter.n_max
            if longest is None:
                strategies.append(Strategy(drafter.kind))
                continue
            wanted = caps or tuple(-(-longest // divisor) for divisor in (8, 4, 2, 1))
            strategies += [Strategy(drafter.kind, cap) for cap in sorted({min(cap, longest) for cap in wanted})]
        return strategies

    def _controlled(self, cap: int | None) -> list[Strategy]:
        limits = ([length for length in (drafter.n_max, cap) if length is not None] for drafter in self.drafters)
        each = tuple(
            Strategy(drafter.kind, min(limit, default=None))
            for drafter, limit in zip(self.drafters, limits, strict=True)
        )
        strategies = [Strategy(), *(Strategy(drafter.kind, among=(drafter,)) for drafter in each)]
        return [*strategies, Strategy(ALL, among=each)] if len(each) > 1 else strategies


AS_STARTED = Abilities()
"""Those of an engine that decodes every request as it was started."""


class Lane(Struct, frozen=True):
    """One way to have a request decoded: an engine plus a strategy."""

    name: str
    engine: str
    strategy: Strategy
    device: str | None = None
    """Engines with the same device are scheduled together; ``None`` shares with nobody."""

    def __post_init__(self) -> None:
        if not self.name or not self.engine:
            raise ValueError("a lane needs a name, and that of its engine")


def engine_of(lane: str) -> str:
    """The name of the engine that a lane of this name is of."""
    return lane.split("/")[0]


class Measured(Struct, frozen=True):
    """Sums over the requests that a lane has finished, under one fingerprint. Sums add, so two replicas' sums may be
    added.

    ``prefill_*`` and ``decode_*`` count only answers that reported both the tokens and the time, and
    ``drafted``/``accepted`` only answers that reported drafts, so a quotient is always over the same answers.
    """

    requests: int = 0
    failures: int = 0
    prefill_tokens: int = 0
    prefill_s: float = 0.0
    decode_tokens: int = 0
    decode_s: float = 0.0
    drafted: int = 0
    accepted: int = 0
    at_s: float = 0.0
    """When the last of them ended, in seconds since 1970."""

    @property
    def tokens_per_s(self) -> float | None:
        """Decoded tokens per second of decoding, weighted by tokens; ``None`` before the first report."""
        return self.decode_tokens / self.decode_s if self.decode_s > 0 else None

    @property
    def acceptance(self) -> float | None:
        """Accepted per drafted token; ``None`` before the first draft."""
        return self.accepted / self.drafted if self.drafted > 0 else None


class Price(Struct, frozen=True):
    """What a provider asks for a million tokens, in the currency of the configuration."""

    input: float
    output: float
    cached_input: float
    """Of prompt tokens that its cache held."""
    cache_write: float
    """Of prompt tokens that were put into its cache."""
    above: "tuple[tuple[int, Price], ...]" = ()
    """What holds instead for requests with more prompt tokens than so many, the smallest number first."""

    def of(self, tokens: "Tokens") -> float:
        """What so many tokens cost."""
        prompt = tokens.fresh + tokens.cached + tokens.cache_writes
        price = next((price for limit, price in reversed(self.above) if prompt > limit), self)
        parts = (
            tokens.fresh * price.input,
            tokens.cached * price.cached_input,
            tokens.cache_writes * price.cache_write,
            tokens.generated * price.output,
        )
        return sum(parts) / 1e6


class Tokens(Struct, frozen=True):
    """Tokens that are billed; each counts in one of the four."""

    fresh: float
    """Of the prompt, neither in a cache nor put into one."""
    generated: float
    cached: float = 0.0
    """Of the prompt, read from the provider's cache."""
    cache_writes: float = 0.0
    """Of the prompt, put into it."""


class Offer(Struct, frozen=True):
    """What an engine offers for the model that a request is for, as far as placement looks at it."""

    engine: str
    is_cloud: bool = False
    """Whether it is a provider's."""
    leaves_machine: bool = False
    """Whether what is sent to it may leave the operator's hands."""
    is_declared: bool = True
    """Whether it is said that it may stand in for other engines under this model's name."""
    model: str = ""
    """As the engine calls it."""
    quality: float | None = None
    """Share of answers that are good enough; ``None`` where nobody said."""
    quality_by_task: Mapping[Task, float] = {}
    can: frozenset[str] | None = None
    """What it can do beside text; ``None`` where nobody said."""
    context_tokens: int | None = None
    slots: int | None = None
    """Requests it decodes at once; ``None`` where that is not known."""
    price: Price | None = None
    """``None`` where no price is known, or none is asked."""

    def quality_for(self, task: Task) -> float | None:
        return self.quality_by_task.get(task, self.quality)


class LaneState(Struct, frozen=True):
    """A lane as the decision sees it at one moment."""

    lane: Lane
    healthy: bool = True
    """Whether its engine is up and does its work, as far as was seen."""
    running: int = 0
    """Requests the lane is decoding now."""
    waiting: int = 0
    """Requests that wait for the lane's turn on its device."""
    fingerprint: str = ""
    """Of the engine and the one model that the request is for: quantization, build, settings. What was learned of
    another fingerprint does not count. Empty: the engine's name stands for it."""
    model: str = ""
    """Of that model and the device: lanes that share it make steps of the same cost. Empty: the fingerprint."""
    machine: str = ""
    """Where the engine runs, where others like it run elsewhere: those with the same fingerprint are its siblings, and
    what is known of them holds for it but for how fast its machine is. Empty: it has none."""
    can_join: bool = True
    """Whether a request sent down this lane would start at once: the lane has its device's turn, or may take
    it, and has a free slot."""
    has_turn: bool = True
    """Whether the lane has its device's turn, or needs none: who waits for it does not wait for another lane."""
    is_up: bool = True
    """Whether its engine answers at all. One that is up and not healthy failed lately, and is left out for a while."""
    cannot_keep: frozenset[str] = frozenset()
    """Names of request fields (``inspection/meaning.py``) whose meaning its drafts change, or that its engine refuses
    while it drafts."""
    drafted_token_cost: float | None = None
    """What each drafted token is believed to add to a verification step before anything was measured, in plain steps:
    the class of the card and the model tell (``planning/speed.py``). ``None`` for what is usual."""
    is_cloud: bool = False
    """Whether its engine is a provider's, which is not tried out, and serves where no engine of one's own does."""
    offer: Offer | None = None
    """What its engine offers; ``None`` where all engines are one's own, and serve the same."""
    needs_alike: bool = False
    """Whether its engine decodes requests of different lanes one after the other, each at a step's cost for all."""


class Prediction(Struct, frozen=True):
    """What is expected of a lane for a request, and what it stands on."""

    fingerprint: str
    """Under which the outcome is learned, as in :class:`LaneState`."""
    model: str
    """Under which step costs and acceptance are learned, as in :class:`LaneState`."""
    strategy: Strategy
    plain_steps_per_token: float
    """Time per token, in units of a plain step made alone, as step cost and acceptance length have it."""
    correction: float = 1.0
    """What past outcomes say that these miss, and that the mean of times is above that of their logarithms: a factor on
    the time."""
    spread: float = 0.0
    """Standard deviation of the time's logarithm, over all requests like this one: of what is not known yet. Of time in
    seconds, and in plain steps before anything was measured."""
    request_spread: float = 0.0
    """The same of a single request beside others like it."""
    plain_step_s: float | None = None
    """Duration of a plain step alone, in seconds; ``None`` before anything was measured."""
    acceptance: float | None = None
    """Probability that a drafted token is accepted; ``None`` for a lane that drafts nothing."""
    coverage: float | None = None
    """Share of the tokens that come out of verification steps; ``None`` for a lane that drafts nothing."""
    tokens: float = 0.0
    """Length of the answer."""
    prefill_s: float = 0.0
    """Seconds until the first token, for the part of the prompt that no cache is taken to hold."""
    break_even: float | None = None
    """Acceptance length of a verification step from which on drafting is as fast as plain steps; ``None`` for a lane
    that drafts nothing."""
    concurrent: int = 0
    """Other requests that were decoded on the same device when this was predicted."""
    drafted_per_step: float | None = None
    """Tokens that the lane drafts at each step; ``None`` where that is not known."""
    drafted_token_cost: float | None = None
    """As in :class:`LaneState`."""
    machine: str = ""
    """As in :class:`LaneState`."""

    @property
    def s_per_token(self) -> float | None:
        """Seconds per token; ``None`` before anything was measured."""
        return None if self.plain_step_s is None else self.relative * self.plain_step_s

    @property
    def relative(self) -> float:
        """Time per token in units of a plain step."""
        return self.plain_steps_per_token * self.correction


class Terms(Struct, frozen=True):
    """What an answer of one engine is taken to cost; money is in the currency of the configuration."""

    time_s: float
    """From now to the answer's end."""
    queue_s: float
    """Of it, waiting for the requests that were there before."""
    cost: float | None
    """What is to be paid for it; ``None`` where no price is known."""
    poor: float
    """Probability that it is not good enough, beyond what the task allows."""
    late: float | None
    """Probability that it is too late; ``None`` without a deadline."""
    total: float = 0.0
    """Time, price and risk together, by the mode; the least is chosen."""
    others_s: float = 0.0
    """By how much others would wait longer for it, in all."""


class Placed(Struct, frozen=True):
    """On which engine a request is served, and why."""

    engine: str
    """That was chosen; of several that serve the same, the first."""
    reason: str
    struck: Mapping[str, str] = {}
    """By engine, why the request may not go there."""
    terms: Mapping[str, Terms] = {}
    """By engine, of those that it may go to."""
    private: str = ""
    """Why it may not leave this machine; empty where it may."""
    why: str = ""
    """What decided, in words that are the same for all such requests; empty in logs from before it was kept."""


class Decision(Struct, frozen=True, weakref=True):
    """The chosen lane and why, with all that learning from its outcome needs."""

    lane: str
    reason: str
    """One line for people, with the numbers it stood on. Printable ASCII, so that it fits a header."""
    propensity: int | float = 1.0
    """Probability with which the policy picks this lane for this request in this state. Logs hold 1 as well as 1.0,
    and an export shows what they hold."""
    propensities: Mapping[str, int | float] = {}
    """The same of every lane that might have been picked; empty where there was no choice."""
    alternatives: tuple[str, ...] = ()
    """Lanes to try, in this order, if the chosen one can't be reached."""
    predictions: Mapping[str, Prediction] = {}
    """By lane."""
    exploring_s: float = 0.0
    """Time that this choice is expected to cost beyond the best prediction; 0 for the best."""
    control: DraftControl | None = None
    """What the chosen lane's control of drafts starts from; ``None`` where nothing is decided while an answer is
    made."""
    signals: Signals | None = None
    """Of the request; ``None`` where they are kept elsewhere, as in the decision log."""
    teaches: bool = True
    """Whether its outcome is learned from, as in :class:`Request`."""
    placed: Placed | None = None
    """``None`` where there was nothing to place: all engines are one's own, and serve the same."""


class DraftCounts(Struct, frozen=True):
    """What one drafter did for one answer."""

    steps: int
    """Verification steps of its drafts."""
    drafted: int
    accepted: int
    accepted_by_position: tuple[int, ...] = ()
    """As in :class:`Observation`."""
    verified_by_position: tuple[int, ...] = ()
    """How often the first, second ... token was drafted and those before it were accepted; empty where the engine did
    not report it."""
    shadow: "DraftCounts | None" = None
    """The same of drafts that were not verified, but compared with what then was generated."""

    def __post_init__(self) -> None:
        if not 0 <= self.accepted <= self.drafted or not 0 <= self.steps <= self.drafted:
            raise ValueError("a drafter accepts no more than it drafts, and drafts at least a token in each step")


class Observation(Struct, frozen=True):
    """What an engine's answer reported about its making. ``None`` where the engine did not report it and it could
    not be observed.

    An engine may report anything, and no answer shall be lost over it: a number that can't be true, such as a negative
    one or more accepted tokens than drafted ones, counts as not reported.
    """

    prompt_tokens: int | None = None
    """Prompt tokens that were processed for this request, without those taken from a cache."""
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    prefill_s: float | None = None
    decode_tokens: int | None = None
    """Tokens decoded during ``decode_s``; one fewer than ``completion_tokens`` where the first token is
    counted with the prefill."""
    decode_s: float | None = None
    drafted: int | None = None
    accepted: int | None = None
    drafting_steps: int | None = None
    """Verification steps: those that verified a draft."""
    accepted_by_position: tuple[int, ...] = ()
    """How often the first, second ... token of a draft was accepted; empty where the engine did not report it."""
    by_drafter: Mapping[str, DraftCounts] = {}
    """What each drafter did, by kind as in :class:`Strategy`; empty where the engine did not report it."""
    cache_write_tokens: int | None = None
    """Of ``prompt_tokens``, those that were put into a provider's cache, which has a price of its own."""

    def __post_init__(self) -> None:
        for name in _NUMBERS:
            value = getattr(self, name)
            if value is not None and not 0 <= value < inf:
                force_setattr(self, name, None)
        if self.accepted_by_position and not all(0 <= count < inf for count in self.accepted_by_position):
            force_setattr(self, "accepted_by_position", ())
        if self.accepted is not None and self.drafted is not None and self.accepted > self.drafted:
            force_setattr(self, "drafted", None)
            force_setattr(self, "accepted", None)


_NUMBERS = tuple(name for name in Observation.__struct_fields__ if name not in ("accepted_by_position", "by_drafter"))


class Answered(Struct, frozen=True):
    """What an engine's answer said of itself beside the text; ``None`` or empty where it said nothing."""

    id: str | None = None
    """The answer's identifier: ``"chatcmpl-7"``."""
    model: str | None = None
    """The model that the engine says it used."""
    finish_reasons: tuple[str, ...] = ()
    """Why each of the answers ended: ``"stop"``, ``"length"``."""


CLIENT_LEFT = 499
"""Status of a request whose client left before its answer was whole, as nginx counts it; nobody is sent it."""
REFUSALS = (408, 409, 425, 429)
"""Statuses below 500 by which an engine says that it could not, and not that the request was wrong."""


class Outcome(Struct, frozen=True):
    """What became of a request."""

    lane: str
    status: int
    """HTTP status that the client was sent; :data:`CLIENT_LEFT` when the client left first."""
    total_s: float
    """From the arrival of the request's last byte to the end of the answer."""
    queue_s: float = 0.0
    """Waiting for a turn on the device."""
    decision_s: float = 0.0
    """Inspecting and deciding."""
    first_byte_s: float | None = None
    """From sending the request to the engine to the first byte of its answer's body."""
    observed: Observation = Observation()
    concurrent: float = field(default=0.0, name="beside")
    """Other requests that decoded on the same device meanwhile, on average: its concurrency, less one. Logs have it
    under an older name."""
    drafted_beside: float | None = None
    """Tokens that all of those together drafted at each step, on average; ``None`` where that is not known."""
    at_s: float = 0.0
    """When it ended, in seconds since 1970."""
    error: str | None = None
    """What went wrong, in one line; ``None`` for an answer that came whole."""
    answered: Answered | None = None
    """What the answer said of itself; ``None`` where nobody looked."""
    fingerprint: str = ""
    """Of the engine and model that served, as in :class:`LaneState`; empty where it is not known."""
    failed: tuple[tuple[str, str], ...] = ()
    """Lanes that it was sent down before, each with its fingerprint, whose engines failed."""
    deliveries: int = 0
    """How often it reached an engine, whatever came of it: each may have worked on it, and a provider may bill it."""
    abandoned: tuple[tuple[str, str], ...] = ()
    """Lanes that were sent it, each with its fingerprint, and were silent or broke off behind the head of an answer: a
    provider may bill what it did until then."""
    cancelled: tuple[tuple[str, str], ...] = ()
    """Lanes that were sent it, each with its fingerprint, and were cancelled since another one was quicker, or, of
    providers, since nobody waited any more; a provider may ask money for that."""
    cost: float | None = None
    """What is to be paid for it, in the currency of the configuration; ``None`` where that is not known, or none asks
    for anything."""
    cost_is_estimate: bool = False
    """Whether the answer did not tell its tokens, so that the cost is a guess."""

    @property
    def is_whole(self) -> bool:
        """Whether it was answered, and the answer came whole."""
        return self.error is None and 200 <= self.status < 300

    @property
    def is_failure(self) -> bool:
        """Whether the engine failed: not where the client left, nor where the request was the client's own mistake."""
        if 400 <= self.status < 500:
            return self.status in REFUSALS
        return not self.is_whole
