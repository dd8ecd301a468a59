"""Which dialect is translated into which, and what is sent then."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from paceline.translation import chat_to_messages, messages_to_chat, responses_to_chat
from paceline.translation.errors import engines_error, error_document
from paceline.translation.flavour import Flavour
from paceline.translation.parts import Garbled, Untranslatable, unheard_of
from paceline.translation.streams import StreamTranslator
from paceline.types import Api

PATHS: Mapping[Api, str] = {Api.OPENAI_CHAT: "/v1/chat/completions", Api.ANTHROPIC_MESSAGES: "/v1/messages"}
"""Of the dialects that are translated into."""
_DIRECTIONS: Mapping[Api, tuple[Api, ...]] = {
    Api.OPENAI_CHAT: (Api.ANTHROPIC_MESSAGES,),
    Api.ANTHROPIC_MESSAGES: (Api.OPENAI_CHAT,),
    Api.OPENAI_RESPONSES: (Api.OPENAI_CHAT, Api.ANTHROPIC_MESSAGES),
}
"""By the client's dialect those of engines, the one that keeps the most first."""
_SPOKEN = {
    Api.OPENAI_CHAT: chat_to_messages,
    Api.ANTHROPIC_MESSAGES: messages_to_chat,
    Api.OPENAI_RESPONSES: responses_to_chat,
}
"""By the client's dialect, what knows its fields."""
Document = dict[str, Any]


class Translated(Struct, frozen=True, kw_only=True):
    """A request in another dialect, and the way back of its answer."""

    client: Api
    """The dialect that the client speaks."""
    api: Api
    """The one that the engine speaks."""
    path: str
    fields: Mapping[str, Any]
    """Of the body for the engine."""
    answer: Callable[[Document], Document]
    """Translates a whole answer; raises :class:`Garbled`."""
    stream: Callable[[], StreamTranslator]
    """A fresh translator for a stream."""
    left_out: tuple[str, ...] = ()
    """Names of the client's fields that are not in any reference of its API, and so left out."""

    def whole(self, status: int, body: bytes) -> bytes:
        """A whole answer, or an error, for the client.

        Raises:
            Garbled: it is none of the engine's dialect.
        """
        try:
            document = msgspec.json.decode(body)
        except (msgspec.DecodeError, ValueError, RecursionError):
            document = None
        error = engines_error(document)
        if error is None and status < 400:
            if not isinstance(document, dict):
                raise Garbled("the engine's answer is no JSON object")
            try:
                return msgspec.json.encode(self.answer(document))
            except (AttributeError, KeyError, TypeError) as odd:
                raise Garbled("the engine's answer is none of its dialect") from odd
        message = error.message if error else f"the engine answered {status}"
        return msgspec.json.encode(error_document(self.client, status if status >= 400 else 502, message))


def can_translate(client: Api, engine: frozenset[Api]) -> Api | None:
    """The dialect of an engine's into which a client's is translated; ``None`` where there is none."""
    return next((api for api in _DIRECTIONS.get(client, ()) if api in engine), None)


def translated(client: Api, api: Api, fields: Mapping[str, Any], *, flavour: Flavour, now_s: int) -> Translated:
    """A request's translation.

    Args:
        client: the dialect of the request.
        api: the one that it is for, as :func:`can_translate` has it.
        fields: of the whole body.
        flavour: of the engine.
        now_s: seconds since 1970.

    Raises:
        Untranslatable: it asks for something that the engine's dialect has no words for.
    """
    try:
        made = _translated(client, api, fields, flavour, now_s)
        spoken = _SPOKEN[client]
        left_out = unheard_of(fields, spoken.KNOWN | spoken.HINTS, spoken.MEANINGFUL)
        return msgspec.structs.replace(made, left_out=left_out)
    except (AttributeError, KeyError, TypeError) as odd:  # a text where an object should be, and the like
        raise Untranslatable("the request is not as its API has it, so it can't be translated") from odd


def _translated(client: Api, api: Api, fields: Mapping[str, Any], flavour: Flavour, now_s: int) -> Translated:
    if client is Api.ANTHROPIC_MESSAGES:
        return Translated(
            client=client,
            api=api,
            path=PATHS[api],
            fields=messages_to_chat.request(fields, flavour),
            answer=messages_to_chat.answer,
            stream=messages_to_chat.Stream,
        )
    if client is Api.OPENAI_CHAT:
        return _to_messages(client, fields, flavour, now_s)
    chat = responses_to_chat.request(fields)
    if api is Api.ANTHROPIC_MESSAGES:
        inner = _to_messages(client, chat, flavour, now_s)
        return msgspec.structs.replace(
            inner,
            answer=lambda document: responses_to_chat.answer(inner.answer(document), fields, now_s),
            stream=lambda: _Chained(inner.stream(), responses_to_chat.Stream(fields, now_s)),
        )
    return Translated(
        client=client,
        api=api,
        path=PATHS[api],
        fields=_as_flavoured(chat, flavour),
        answer=lambda document: responses_to_chat.answer(document, fields, now_s),
        stream=lambda: responses_to_chat.Stream(fields, now_s),
    )


def _to_messages(client: Api, chat: Mapping[str, Any], flavour: Flavour, now_s: int) -> Translated:
    tells_usage = bool((chat.get("stream_options") or {}).get("include_usage"))
    return Translated(
        client=client,
        api=Api.ANTHROPIC_MESSAGES,
        path=PATHS[Api.ANTHROPIC_MESSAGES],
        fields=chat_to_messages.request(chat, flavour),
        answer=lambda document: chat_to_messages.answer(document, now_s),
        stream=lambda: chat_to_messages.Stream(tells_usage=tells_usage, now_s=now_s),
    )


def _as_flavoured(chat: Mapping[str, Any], flavour: Flavour) -> Document:
    """A request in chat's own fields, as an engine takes them."""
    fields = dict(chat)
    if (limit := fields.pop("max_completion_tokens", None)) is not None:
        fields[flavour.max_tokens_field] = limit
    fields["messages"] = [_without_thinking(message, flavour) for message in fields["messages"]]
    return fields


def _without_thinking(message: Document, flavour: Flavour) -> Document:
    """OpenAI takes no thinking with a message, and signed thinking is Anthropic's."""
    dropped = ("thinking_blocks",) if flavour.takes_more else ("thinking_blocks", "reasoning_content")
    return {key: value for key, value in message.items() if key not in dropped}


class _Chained:
    """Two translators, one after the other."""

    def __init__(self, first: StreamTranslator, second: StreamTranslator) -> None:
        self._first, self._second = first, second

    def feed(self, piece: bytes) -> bytes:
        """As :class:`StreamTranslator` has it."""
        return self._second.feed(self._first.feed(piece))

    def end(self) -> bytes:
        """As :class:`StreamTranslator` has it."""
        last = self._second.feed(self._first.end())
        return last + self._second.end()
