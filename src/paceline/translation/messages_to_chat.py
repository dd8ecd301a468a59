"""Clients that speak Anthropic's messages, before engines that speak OpenAI's chat completions.

Sources: the references of both APIs, and the types of both SDKs (``anthropic`` 2.14, ``openai`` 3.57).
``reasoning_content`` (DeepSeek, llama.cpp, vLLM) and ``reasoning`` (OpenRouter) are the fields that engines think in.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from paceline.translation.errors import engines_error, error_document
from paceline.translation.flavour import Flavour
from paceline.translation.parts import (
    Garbled,
    Meaningful,
    as_json,
    as_list,
    as_object,
    as_text,
    check,
    count,
    each,
    present,
    refuse,
    short_id,
)
from paceline.translation.streams import DONE, EventTranslator, named
from paceline.types import Api

KNOWN = frozenset(
    "model messages system max_tokens temperature top_p top_k stop_sequences stream tools tool_choice thinking "
    "output_config metadata service_tier context_management".split()
)
"""Fields that are translated."""
HINTS = frozenset(
    "cache_control diagnostics speed betas user_profile_id workspace_id billing_policy fallbacks "
    "fallback_credit_token".split()
)
"""Fields that change no answer, and are left out: chat's engines keep their caches by themselves."""
MEANINGFUL: Meaningful = {"mcp_servers": ([],), "inference_geo": ("global",)} | dict.fromkeys(
    ("container", "thread", "compaction"), ()
)
MEANINGFUL_OF_A_TOOL: Meaningful = {"defer_loading": (False,), "allowed_callers": (["direct"],)}
EFFORTS = ("low", "medium", "high", "xhigh", "max")
EFFORT_OF_BUDGET: Sequence[tuple[int, str]] = ((2048, "low"), (8192, "medium"))
"""Up to so many tokens of thinking; more is ``high``. There is no public table; LiteLLM's steps are near these."""
SERVICE_TIERS: Mapping[str, str] = {"auto": "auto", "standard_only": "default"}
STOP_REASONS: Mapping[str, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
"""By ``finish_reason``."""
MAX_USER_CHARS = 64
"""Of ``user``, at OpenAI; Claude Code's identifiers are longer."""
ANOTHER_API = "the engine that would serve this speaks another API"


# The request


def request(fields: Mapping[str, Any], flavour: Flavour) -> dict[str, Any]:
    """The body for the engine.

    Raises:
        Untranslatable: it asks for something that chat has no words for.
    """
    check(fields, MEANINGFUL)
    _check_context_management(fields)
    messages = list(_messages(fields, flavour))
    if fields.get("top_k") is not None and not flavour.takes_more:
        refuse("top_k", f"{ANOTHER_API}, which has no such field")
    tier = fields.get("service_tier")
    choice, is_parallel = _tool_choice(fields)
    stream = fields.get("stream")
    return present(
        model=fields.get("model"),
        messages=messages,
        temperature=fields.get("temperature"),
        top_p=fields.get("top_p"),
        top_k=fields.get("top_k"),
        stop=fields.get("stop_sequences") or None,
        stream=stream,
        stream_options={"include_usage": True} if stream else None,
        tools=each(fields.get("tools"), _tool, "tools"),
        tool_choice=choice,
        parallel_tool_calls=is_parallel,
        response_format=_response_format(fields),
        reasoning_effort=_effort(fields),
        user=short_id((fields.get("metadata") or {}).get("user_id"), MAX_USER_CHARS),
        service_tier=SERVICE_TIERS.get(tier) if isinstance(tier, str) else None,
    ) | ({flavour.max_tokens_field: fields["max_tokens"]} if fields.get("max_tokens") is not None else {})


def _check_context_management(fields: Mapping[str, Any]) -> None:
    """What clears the past, so that a long conversation costs less, changes nothing where all of it is sent; what else
    is done to it can't be said."""
    edits = as_object(fields.get("context_management") or {}, "context_management").get("edits") or ()
    if any(not str(_kind(edit)).startswith("clear_") for edit in edits):
        refuse("context_management", f"{ANOTHER_API}, which has no such field")


def _effort(fields: Mapping[str, Any]) -> str | None:
    """The effort of thinking. Thinking that is off is chat's default as it is that of messages."""
    thinking = as_object(fields.get("thinking") or {}, "thinking")
    kind, effort = thinking.get("type"), (fields.get("output_config") or {}).get("effort")
    if kind not in (None, "enabled", "adaptive", "disabled"):
        refuse("thinking.type", f"{ANOTHER_API}, which has no {kind!r}")
    if effort is not None:
        if effort not in EFFORTS:
            refuse("output_config.effort", f"there is no {effort!r}")
        return "xhigh" if effort == "max" else str(effort)
    if kind != "enabled":
        return None  # the model decides by itself, or its default holds
    budget = count(thinking.get("budget_tokens"))
    return next((name for most, name in EFFORT_OF_BUDGET if budget <= most), "high")


def _response_format(fields: Mapping[str, Any]) -> dict[str, Any] | None:
    output = as_object(fields.get("output_config") or {}, "output_config")
    wanted = output.get("format")
    if wanted is None:
        return None
    wanted = as_object(wanted, "output_config.format")
    if wanted.get("type") != "json_schema":
        refuse("output_config.format", f"{ANOTHER_API}, which has no {wanted.get('type')!r}")
    schema = as_object(wanted.get("schema"), "output_config.format.schema")
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


def _tool(tool: Any, where: str) -> dict[str, Any]:
    tool = as_object(tool, where)
    if tool.get("type") not in (None, "custom"):
        refuse(where, f"a tool of type {tool.get('type')!r} is the other API's own, and the engine does not have it")
    check(tool, MEANINGFUL_OF_A_TOOL, where)
    function = present(
        name=as_text(tool.get("name"), f"{where}.name"),
        description=tool.get("description"),
        parameters=as_object(tool.get("input_schema") or {}, f"{where}.input_schema"),
        strict=tool.get("strict") or None,
    )
    return {"type": "function", "function": function}


def _tool_choice(fields: Mapping[str, Any]) -> tuple[Any, bool | None]:
    """``tool_choice`` and ``parallel_tool_calls``."""
    choice = fields.get("tool_choice")
    if choice is None or not fields.get("tools"):
        return None, None
    choice = as_object(choice, "tool_choice")
    is_parallel = False if choice.get("disable_parallel_tool_use") else None
    kind = choice.get("type")
    if kind == "tool":
        name = as_text(choice.get("name"), "tool_choice.name")
        return {"type": "function", "function": {"name": name}}, is_parallel
    if kind not in ("auto", "any", "none"):
        refuse("tool_choice.type", f"there is no {kind!r}")
    return ("required" if kind == "any" else kind), is_parallel


def _messages(fields: Mapping[str, Any], flavour: Flavour) -> Iterator[dict[str, Any]]:
    system = fields.get("system")
    if system:
        yield {"role": "system", "content": _plain_text(system, "system")}
    messages = [
        as_object(message, f"messages[{number}]")
        for number, message in enumerate(as_list(fields.get("messages"), "messages"))
    ]
    if messages and messages[-1].get("role") == "assistant":
        refuse(f"messages[{len(messages) - 1}]", f"{ANOTHER_API}, which can't go on with an answer's beginning")
    turn_begins = _last_turn(messages)
    for number, message in enumerate(messages):
        where, role = f"messages[{number}]", message.get("role")
        if role == "system":
            yield {"role": "system", "content": _plain_text(message.get("content"), f"{where}.content")}
        elif role == "user":
            yield from _from_user(message.get("content"), f"{where}.content")
        elif role == "assistant":
            yield _from_assistant(message.get("content"), f"{where}.content", flavour, number > turn_begins)
        else:
            refuse(f"{where}.role", f"is {role!r}, which is none of a message")


def _last_turn(messages: Sequence[Mapping[str, Any]]) -> int:
    """The number of the user's last message without results of tools: what follows is a loop of tools' calls."""
    for number in range(len(messages) - 1, -1, -1):
        content = messages[number].get("content")
        blocks = content if isinstance(content, list) else ()
        if messages[number].get("role") == "user" and all(_kind(block) != "tool_result" for block in blocks):
            return number
    return -1


def _kind(block: Any) -> Any:
    return block.get("type") if isinstance(block, dict) else None


def _plain_text(content: Any, where: str) -> str:
    """Text, or blocks of text, as one text. Marks for caches are left out."""
    if isinstance(content, str):
        return content
    texts = []
    for number, block in enumerate(as_list(content, where)):
        block = as_object(block, f"{where}[{number}]")
        if block.get("type") != "text":
            refuse(
                f"{where}[{number}]",
                f"a block of type {block.get('type')!r} can't stand there where the engine speaks another API",
            )
        texts.append(as_text(block.get("text"), f"{where}[{number}].text"))
    return "\n\n".join(texts)


def _from_user(content: Any, where: str) -> Iterator[dict[str, Any]]:
    """The results of tools, and then what the user says. Chat takes only text from a tool: its images and documents
    come right behind the results."""
    if isinstance(content, str):
        yield {"role": "user", "content": content}
        return
    parts: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []
    for number, block in enumerate(as_list(content, where)):
        at = f"{where}[{number}]"
        block = as_object(block, at)
        if block.get("type") == "tool_result":
            if parts:
                refuse(at, "a tool's result has to stand before what the user says")
            text, more = _tool_result(block, at)
            shown += more
            yield {
                "role": "tool",
                "tool_call_id": as_text(block.get("tool_use_id"), f"{at}.tool_use_id"),
                "content": text,
            }
        else:
            parts.append(_part(block, at))
    parts = shown + parts
    if len(parts) == 1 and parts[0]["type"] == "text":
        yield {"role": "user", "content": parts[0]["text"]}
    elif parts:
        yield {"role": "user", "content": parts}


def _tool_result(block: Mapping[str, Any], where: str) -> tuple[str, list[dict[str, Any]]]:
    content, parts = block.get("content"), []
    if content is None or isinstance(content, str):
        text = content or ""
    else:
        blocks = [as_object(inner, f"{where}.content") for inner in as_list(content, f"{where}.content")]
        texts = [as_text(inner.get("text"), f"{where}.content") for inner in blocks if inner.get("type") == "text"]
        parts = [_part(inner, f"{where}.content") for inner in blocks if inner.get("type") != "text"]
        text = "\n".join(texts)
    if block.get("is_error") and not text.startswith("Error"):
        text = f"Error: {text}"  # chat has no other way to say it
    return text, parts


def _part(block: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What a user shows or says."""
    kind = block.get("type")
    if kind == "text":
        return {"type": "text", "text": as_text(block.get("text"), f"{where}.text")}
    source = as_object(block.get("source") or {}, f"{where}.source")
    came = source.get("type")
    if kind == "image" and came == "base64":
        return {
            "type": "image_url",
            "image_url": {"url": f"data:{source.get('media_type')};base64,{source.get('data')}"},
        }
    if kind == "image" and came == "url":
        return {"type": "image_url", "image_url": {"url": as_text(source.get("url"), f"{where}.source.url")}}
    if kind == "document" and (block.get("citations") or {}).get("enabled"):
        refuse(f"{where}.citations", f"{ANOTHER_API}, which has none")
    if kind == "document" and came == "base64":
        data = f"data:{source.get('media_type', 'application/pdf')};base64,{source.get('data')}"
        return {"type": "file", "file": {"filename": block.get("title") or "document.pdf", "file_data": data}}
    if kind == "document" and came == "text":
        about = [block[name] for name in ("title", "context") if isinstance(block.get(name), str)]
        return {"type": "text", "text": "\n\n".join([*about, as_text(source.get("data"), f"{where}.source.data")])}
    if kind in ("image", "document"):
        refuse(f"{where}.source", f"of type {came!r} has no counterpart at the engine that would serve this")
    return refuse(where, f"a block of type {kind!r} has no counterpart at the engine that would serve this")


def _from_assistant(content: Any, where: str, flavour: Flavour, is_in_loop: bool) -> dict[str, Any]:
    """
    Args:
        is_in_loop: whether it belongs to the loop of tools' calls that is to go on. Thinking of earlier turns is not
            shown to any model again; that of a loop is, and what another model has signed can't be.
    """
    if isinstance(content, str):
        return {"role": "assistant", "content": content}
    texts, thoughts, calls = [], [], []
    for number, block in enumerate(as_list(content, where)):
        at = f"{where}[{number}]"
        block = as_object(block, at)
        kind = block.get("type")
        if kind == "text":
            texts.append(as_text(block.get("text"), f"{at}.text"))
        elif kind in ("thinking", "redacted_thinking"):
            if is_in_loop and (block.get("signature") or kind == "redacted_thinking"):
                refuse(at, "the thinking is signed by another model, which has to end this turn")
            if is_in_loop:
                thoughts.append(as_text(block.get("thinking"), f"{at}.thinking"))
        elif kind == "tool_use":
            arguments = as_json(block.get("input") or {})
            function = {"name": as_text(block.get("name"), f"{at}.name"), "arguments": arguments}
            calls.append({"id": as_text(block.get("id"), f"{at}.id"), "type": "function", "function": function})
        else:
            refuse(at, f"a block of type {kind!r} has no counterpart at the engine that would serve this")
    said = {"role": "assistant", "content": "".join(texts) or (None if calls else "")}
    thought = "".join(thoughts) if flavour.takes_more else ""
    return said | present(reasoning_content=thought or None, tool_calls=calls or None)


# The answer


def answer(completion: Mapping[str, Any]) -> dict[str, Any]:
    """A whole answer.

    Raises:
        Garbled: it is none of chat, or a tool's arguments are no JSON object.
    """
    choices = completion.get("choices")
    if not isinstance(choices, list) or not choices:
        raise Garbled("the engine's answer has no choices")
    said = choices[0].get("message") or {}
    content: list[dict[str, Any]] = []
    if thought := said.get("reasoning_content") or said.get("reasoning"):
        content.append({"type": "thinking", "thinking": thought, "signature": ""})
    texts = (_said_text(said.get("content")), said.get("refusal"))
    content += [{"type": "text", "text": text} for text in texts if text]
    for call in said.get("tool_calls") or ():
        function = call.get("function") or {}
        block = {"type": "tool_use", "id": call.get("id"), "name": function.get("name")}
        content.append(block | {"input": _input(function.get("arguments"))})
    reason, sequence = _stop(choices[0], said)
    return {
        "id": completion.get("id"),
        "type": "message",
        "role": "assistant",
        "model": completion.get("model"),
        "content": content,
        "stop_reason": reason,
        "stop_sequence": sequence,
        "usage": usage(completion.get("usage") or {}),
    }


def _said_text(content: Any) -> str | None:
    """Some engines (Mistral) say their text in parts."""
    if isinstance(content, list):
        return "".join(part.get("text") or "" for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else None


def _input(arguments: Any) -> dict[str, Any]:
    try:
        decoded = msgspec.json.decode(arguments) if arguments else {}
    except (msgspec.DecodeError, TypeError, RecursionError):
        decoded = None
    if not isinstance(decoded, dict):
        raise Garbled("the arguments of the engine's call of a tool are no JSON object")
    return decoded


def _stop(choice: Mapping[str, Any], said: Mapping[str, Any]) -> tuple[str, str | None]:
    """``stop_reason`` and ``stop_sequence``; the latter where the engine tells it, as vLLM does."""
    sequence = choice.get("stop_reason")
    if isinstance(sequence, str):
        return "stop_sequence", sequence
    if said.get("refusal"):
        return "refusal", None
    if said.get("tool_calls") and choice.get("finish_reason") == "stop":
        return "tool_use", None  # as some engines end a call that was asked for
    return STOP_REASONS.get(choice.get("finish_reason") or "", "end_turn"), None


def usage(counts: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAI counts what was read from a cache and written to it within the prompt; Anthropic beside it."""
    details = counts.get("prompt_tokens_details") or {}
    read, written = count(details.get("cached_tokens")), count(details.get("cache_write_tokens"))
    translated: dict[str, Any] = {
        "input_tokens": max(0, count(counts.get("prompt_tokens")) - read - written),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "output_tokens": count(counts.get("completion_tokens")),
    }
    thought = (counts.get("completion_tokens_details") or {}).get("reasoning_tokens")
    if thought is not None:
        translated["output_tokens_details"] = {"thinking_tokens": count(thought)}
    return translated


# The stream


class _Function(Struct):
    name: str | None = None
    arguments: str | None = None


class _Call(Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(Struct):
    delta: _Delta | None = None
    finish_reason: str | None = None
    stop_reason: str | int | None = None
    index: int = 0


class _Chunk(Struct):
    id: str | None = None
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: dict[str, Any] | None = None
    error: Any = None


_chunks = msgspec.json.Decoder(_Chunk)


class Stream(EventTranslator):
    """A stream of chunks, as messages' events. What chat tells at the end, Anthropic tells at the beginning: the tokens
    of the prompt are 0 in ``message_start``, and right in ``message_delta``, which counts."""

    def __init__(self) -> None:
        super().__init__()
        self._index = -1
        """Of the last block."""
        self._open: str | int | None = None
        """What the open block holds: ``thinking`` or ``text``, or the number of a tool's call."""
        self._calls: set[int] = set()
        """Numbers of the tools' calls that have begun."""
        self._has_started = False
        self._reason: str | None = None
        self._sequence: str | None = None
        self._refused = False
        self._usage: dict[str, Any] = {}

    def translate(self, name: bytes, data: bytes) -> bytes:
        if data == DONE:
            return self._end()
        try:
            chunk = _chunks.decode(data)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise Garbled("an event of its stream is no chunk of chat") from error
        if chunk.error or name == b"error":
            self.has_ended = True
            told = engines_error(msgspec.json.decode(data), name)
            message = told.message if told else "the engine failed"
            return named("error", error_document(Api.ANTHROPIC_MESSAGES, 502, message))
        events = [] if self._has_started else [self._start(chunk)]
        if chunk.usage:
            self._usage = chunk.usage
        for choice in chunk.choices or ():
            if choice.index == 0:
                events += self._choice(choice)
        return b"".join(events)

    def end(self) -> bytes:
        """Some engines leave out the last event; that they told why they ended is enough."""
        if not self.has_ended and self._reason is not None:
            return self._end()
        return super().end()

    def _start(self, chunk: _Chunk) -> bytes:
        self._has_started = True
        message: dict[str, Any] = {
            "id": chunk.id,
            "type": "message",
            "role": "assistant",
            "model": chunk.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage(chunk.usage or {}),
        }
        return named("message_start", {"type": "message_start", "message": message})

    def _choice(self, choice: _Choice) -> list[bytes]:
        events: list[bytes] = []
        if (delta := choice.delta) is not None:
            if thought := delta.reasoning_content or delta.reasoning:
                self._say(events, "thinking", {"type": "thinking", "thinking": "", "signature": ""})
                events.append(self._delta("thinking_delta", "thinking", thought))
            if text := delta.content or delta.refusal:
                self._refused = self._refused or bool(delta.refusal)
                self._say(events, "text", {"type": "text", "text": ""})
                events.append(self._delta("text_delta", "text", text))
            for call in delta.tool_calls or ():
                self._call(events, call)
        if choice.finish_reason:
            if isinstance(choice.stop_reason, str):
                self._reason, self._sequence = "stop_sequence", choice.stop_reason
            else:
                self._reason = STOP_REASONS.get(choice.finish_reason, "end_turn")
            if self._calls and choice.finish_reason == "stop":
                self._reason = "tool_use"
            if self._refused:
                self._reason = "refusal"
        return events

    def _call(self, events: list[bytes], call: _Call) -> None:
        function = call.function or _Function()
        number = call.index if call.index is not None else (len(self._calls) - (not call.id))
        if number not in self._calls:
            self._calls.add(number)
            self._say(events, number, {"type": "tool_use", "id": call.id, "name": function.name, "input": {}})
        elif number != self._open:
            raise Garbled("its stream mixes the arguments of two calls")
        if function.arguments:
            events.append(self._delta("input_json_delta", "partial_json", function.arguments))

    def _say(self, events: list[bytes], what: str | int, block: dict[str, Any]) -> None:
        """Have a block open that holds what is said now."""
        if self._open == what:
            return
        events.append(self._closed())
        self._open = what
        self._index += 1
        started = {"type": "content_block_start", "index": self._index, "content_block": block}
        events.append(named("content_block_start", started))

    def _closed(self) -> bytes:
        if self._open is None:
            return b""
        self._open = None
        return named("content_block_stop", {"type": "content_block_stop", "index": self._index})

    def _delta(self, kind: str, key: str, text: str) -> bytes:
        delta = {"type": kind, key: text}
        return named("content_block_delta", {"type": "content_block_delta", "index": self._index, "delta": delta})

    def _end(self) -> bytes:
        if not self._has_started or self._reason is None:
            raise Garbled("its stream ended without a reason")
        self.has_ended = True
        delta = {"stop_reason": self._reason, "stop_sequence": self._sequence}
        last = {"type": "message_delta", "delta": delta, "usage": usage(self._usage)}
        return self._closed() + named("message_delta", last) + named("message_stop", {"type": "message_stop"})
