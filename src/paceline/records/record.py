"""The noun for what happened: one request, what was found in it, what was decided, and what became of it."""

from typing import Protocol

from msgspec import Struct

from paceline.types import Api, Decision, Outcome, Signals, Task


class Parameters(Struct, frozen=True):
    """What a request asked of the model beside its prompt, as far as no text of the client's is in it."""

    api: Api = Api.OPENAI_CHAT
    trace: str | None = None
    """The request header ``traceparent``, where it has the form of one."""
    top_k: int | None = None
    seed: int | None = None
    answers: int | None = None
    """How many answers it wants."""
    stops: tuple[str, ...] | None = None
    """Its stop sequences, where they are too short to be text."""
    effort: str | None = None
    """How much the model shall reason: ``"low"``, ``"high"`` ..."""


class Record(Struct, frozen=True, omit_defaults=True):
    """What happened with one request, as it may be kept: bounded, and free of the client's text but for ``text``.

    :func:`paceline.records.kept.kept_record` makes it; every sink is given it; the decision log stores it as JSON,
    field by field, and reading a log gives it back. What changes here changes the log's format
    (:data:`paceline.records.decision_log.FORMAT`).
    """

    id: str | None
    """The client's name for the request."""
    path: str
    model: str | None
    """The name under which the model that served it is listed; ``None`` where none is known."""
    stream: bool
    forced: bool
    """Whether the request named its lane."""
    task: Task
    """The likeliest one of the signals."""
    strategy: str | None
    """How the lane that served drafts, as :class:`~paceline.types.Strategy` has it; ``None`` without a prediction."""
    n_max: int | None
    signals: Signals
    decision: Decision
    outcome: Outcome
    text: str | None
    """The request's body; only for the decision log, and only where ``evidence.keep_text`` is on."""
    client: str | None = None
    """The name of the client's key."""
    parameters: Parameters | None = None
    """Only for spans."""


class Sink(Protocol):
    """Takes in what happened. It must not block, and may keep all that it is given."""

    def record(self, record: Record, /) -> None: ...
