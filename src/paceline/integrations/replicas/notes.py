"""What routers and replicas tell one another: what a replica offers, what was decided for a request, and what became of
it. All of it travels by Ray's own ways: with a replica's routing statistics, and in the body of a request."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import msgspec
from msgspec import Struct

from paceline.types import NO_CONTROL, Api, DraftControl, Outcome, Request, Strategy

FIELD = "paceline"
"""Of a request's body and of a replica's statistics: what Paceline says there. No engine is sent it."""
PROMPTS: Mapping[str, Api] = {
    "messages": Api.OPENAI_CHAT,
    "prompt": Api.OPENAI_COMPLETIONS,
    "input": Api.OPENAI_RESPONSES,
}
"""Fields that tell a generation request, and the API that has them."""


class OfferedLane(Struct, frozen=True):
    """One way in which a replica can decode."""

    name: str
    """The same on all replicas that are alike: ``ngram-8``."""
    strategy: Strategy
    cannot_keep: frozenset[str] = frozenset()
    """As in :class:`LaneState`."""


class Offer(Struct, frozen=True):
    """What a replica offers. It changes seldom, since Ray tells all routers whenever it does."""

    engine: str
    """A name for people, of all replicas that are alike."""
    fingerprint: str
    """Of all that changes how fast it decodes: replicas with the same one are alike, and learned of together."""
    model: str
    """Of the model and the class of machine, as in :class:`LaneState`."""
    device: str
    """Replicas on the same device slow one another down."""
    lanes: tuple[OfferedLane, ...]
    """The default one first."""
    slots: int | None = None
    """Requests that it decodes at once; ``None`` where that is not known."""
    is_well: bool = True
    drafted_token_cost: float | None = None
    """As in :class:`LaneState`."""

    def told(self) -> dict[str, str]:
        """As a replica's statistics have it."""
        return {FIELD: msgspec.json.encode(self).decode()}


class Choice(Struct, frozen=True):
    """What was decided for a request. It travels in its body, under :data:`FIELD`."""

    shared: str
    """Over what its outcome is to be told: the name of what routers share."""
    router: str
    """Who is to be told that."""
    number: int
    """Of the router's decisions."""
    lanes: Mapping[str, str]
    """The lane to use, as the router calls it, by the fingerprint of the replica that comes to serve it: ``gpu/plain``
    is the lane ``plain`` of such a replica."""
    fingerprint: str
    """Of the replica that it was decided for."""
    reason: str
    control: DraftControl = NO_CONTROL
    """What control of drafts starts from on such a replica."""
    avoid: tuple[str, ...] = ()
    """As in :class:`Tried`, for when it is decided on again."""


class Tried(Struct, frozen=True):
    """Where a request was sent before, in vain. It travels in its body, under :data:`FIELD`, until it is decided on."""

    avoid: tuple[str, ...]
    """Replicas to ask last."""


class Served(Struct, frozen=True):
    """What became of a request."""

    number: int
    """As in its :class:`Choice`."""
    outcome: Outcome


@runtime_checkable
class _Model(Protocol):
    """A request as a model of pydantic's, as Ray's LLM deployments take it."""

    def model_dump(self, *, exclude_unset: bool) -> dict[str, Any]: ...

    def model_copy(self, *, update: Mapping[str, Any]) -> Any: ...


def offer_in(statistics: Mapping[str, Any] | None) -> Offer | None:
    """What a replica's statistics tell; ``None`` where they tell nothing that can be understood."""
    told = statistics.get(FIELD) if statistics else None
    if not isinstance(told, str):
        return None
    try:
        offer = msgspec.json.decode(told, type=Offer)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return offer if offer.lanes else None


def body_at(arguments: Sequence[Any]) -> int | None:
    """The place of the argument that is a generation request's body; ``None`` where there is none."""
    for place, argument in enumerate(arguments):
        if isinstance(argument, Mapping):
            is_body = not PROMPTS.keys().isdisjoint(argument)
        else:
            is_body = isinstance(argument, _Model) and any(hasattr(argument, name) for name in PROMPTS)
        if is_body:
            return place
    return None


def fields_of(body: Any) -> dict[str, Any]:
    """The fields that the client gave, without Paceline's."""
    fields = dict(body) if isinstance(body, Mapping) else body.model_dump(exclude_unset=True)
    fields.pop(FIELD, None)
    return fields


def request_of(fields: Mapping[str, Any], body: bytes = b"") -> Request:
    """The request to decide on, or to have prepared for an engine."""
    api = next((api for name, api in PROMPTS.items() if name in fields), Api.OPENAI_CHAT)
    model = fields.get("model")
    return Request(
        api=api,
        path="",
        body=body,
        fields=fields,
        model=model if isinstance(model, str) and model else None,
        stream=fields.get("stream") is True,
    )


def note_in(body: Any) -> Tried | Choice | None:
    """What Paceline says in a body; whatever else stands there is nothing of it."""
    note = body.get(FIELD) if isinstance(body, Mapping) else getattr(body, FIELD, None)
    return note if isinstance(note, Tried | Choice) else None


def with_note(body: Any, note: Tried | Choice) -> Any:
    """The body with what Paceline says; the given one stays as it was."""
    return {**body, FIELD: note} if isinstance(body, Mapping) else body.model_copy(update={FIELD: note})
