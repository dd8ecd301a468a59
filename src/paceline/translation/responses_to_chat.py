"""Clients that speak OpenAI's responses, before engines that speak its chat completions.

Nothing is stored: a request that goes on with a stored response can't be served so. Sources: the references of both
APIs, and the types and the stream helper of the SDK (``openai`` 3.57).
"""

from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from paceline.translation.errors import engines_error
from paceline.translation.parts import (
    Garbled,
    Meaningful,
    as_list,
    as_object,
    as_text,
    check,
    count,
    each,
    present,
    refuse,
)
from paceline.translation.streams import DONE, EventTranslator, decoded, named

KNOWN = frozenset(
    "model input instructions max_output_tokens temperature top_p tools tool_choice parallel_tool_calls text reasoning "
    "stream store metadata user safety_identifier service_tier include".split()
)
"""Fields that are translated."""
HINTS = frozenset(
    "prompt_cache_key prompt_cache_retention prompt_cache_options stream_options client_metadata truncation "
    "max_tool_calls context_management background_options access_programs image".split()
)
"""Fields that change no answer, and are left out: what they bound or cut are tools of the other API's own, and what is
too long for it."""
MEANINGFUL: Meaningful = {
    "background": (False,),
    "top_logprobs": (0,),
    **dict.fromkeys(("conversation", "previous_response_id", "prompt", "moderation"), ()),
}
SIGNED_THOUGHTS = "reasoning.encrypted_content"
LOGPROBS = "message.output_text.logprobs"
"""Of what may be asked for in ``include``, what tells more than of tools that are not there."""
ECHOED = (
    *("instructions", "max_output_tokens", "temperature", "top_p", "tools", "tool_choice", "parallel_tool_calls"),
    *("text", "reasoning", "metadata", "user", "service_tier"),
)
"""Fields of the request that stand in the response, too."""
SIGNED = "paceline:"
"""Before signed thinking of a model that has another API, in ``encrypted_content``."""
ANOTHER_API = "the engine that would serve this speaks another API"


# The request


def request(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The body for the engine, in chat's fields.

    Raises:
        Untranslatable: it asks for something that chat has no words for.
    """
    check(fields, MEANINGFUL)
    if fields.get("store"):
        refuse("store", f"{ANOTHER_API}, which stores nothing that responses could go on with")
    if LOGPROBS in (fields.get("include") or ()):
        refuse("include", f"{ANOTHER_API}, which does not tell {LOGPROBS!r}")
    reasoning = as_object(fields.get("reasoning") or {}, "reasoning")
    text = as_object(fields.get("text") or {}, "text")
    stream = fields.get("stream")
    tools, instructions = fields.get("tools"), fields.get("instructions")
    messages: list[dict[str, Any]] = []
    if instructions:
        messages.append({"role": "system", "content": as_text(instructions, "instructions")})
    return present(
        model=fields.get("model"),
        messages=messages + list(_messages(fields.get("input"))),
        max_completion_tokens=fields.get("max_output_tokens"),
        temperature=fields.get("temperature"),
        top_p=fields.get("top_p"),
        tools=each(tools, _tool, "tools"),
        tool_choice=_tool_choice(fields.get("tool_choice")) if tools else None,
        parallel_tool_calls=fields.get("parallel_tool_calls") if tools else None,
        response_format=_response_format(as_object(text.get("format") or {}, "text.format")),
        verbosity=text.get("verbosity"),
        reasoning_effort=reasoning.get("effort"),
        stream=stream,
        stream_options={"include_usage": True} if stream else None,
        user=fields.get("user"),
        safety_identifier=fields.get("safety_identifier"),
        service_tier=fields.get("service_tier"),
    )


def _response_format(wanted: dict[str, Any]) -> dict[str, Any] | None:
    kind = wanted.get("type", "text")
    if kind == "text":
        return None
    if kind == "json_object":
        return {"type": kind}
    if kind != "json_schema":
        refuse("text.format", f"there is no {kind!r}")
    return {"type": "json_schema", "json_schema": {key: value for key, value in wanted.items() if key != "type"}}


def _tool(tool: Any, where: str) -> dict[str, Any]:
    tool = as_object(tool, where)
    if tool.get("type") != "function":
        refuse(where, f"a tool of type {tool.get('type')!r} is the other API's own, and the engine does not have it")
    keys = ("name", "description", "parameters", "strict")
    return {"type": "function", "function": {key: tool[key] for key in keys if tool.get(key) is not None}}


def _tool_choice(choice: Any) -> Any:
    if choice is None or choice in ("none", "auto", "required"):
        return choice
    choice = as_object(choice, "tool_choice")
    if choice.get("type") != "function":
        refuse("tool_choice", f"{ANOTHER_API}, which has no {choice.get('type')!r}")
    return {"type": "function", "function": {"name": as_text(choice.get("name"), "tool_choice.name")}}


def _messages(given: Any) -> Iterator[dict[str, Any]]:
    """The messages; thinking, text and calls of the assistant that follow one another are one."""
    if isinstance(given, str):
        yield {"role": "user", "content": given}
        return
    said: dict[str, Any] = {}
    for number, item in enumerate(as_list(given, "input")):
        where = f"input[{number}]"
        item = as_object(item, where)
        kind = item.get("type", "message")
        is_said = kind == "message" and item.get("role") == "assistant"
        if is_said or kind == "reasoning":
            if said.get("content") is not None or said.get("tool_calls"):
                yield said
                said = {}
            more = (
                {"content": _said_text(item.get("content"), f"{where}.content")} if is_said else _thought(item, where)
            )
            said = _assistant(said) | more
        elif kind == "function_call":
            said = _assistant(said)
            said.setdefault("tool_calls", []).append(_call(item, where))
        else:
            if said:
                yield said
                said = {}
            yield _other(item, kind, where)
    if said:
        yield said


def _assistant(said: Mapping[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": None} | dict(said)


def _other(item: Mapping[str, Any], kind: Any, where: str) -> dict[str, Any]:
    if kind == "function_call_output":
        output = item.get("output")
        content: Any = output if isinstance(output, str) else _parts(output, f"{where}.output")
        return {"role": "tool", "tool_call_id": as_text(item.get("call_id"), f"{where}.call_id"), "content": content}
    if kind != "message":
        refuse(where, f"an item of type {kind!r} has no counterpart at the engine that would serve this")
    role, content = item.get("role"), item.get("content")
    if role not in ("user", "system", "developer"):
        refuse(f"{where}.role", f"is {role!r}, which is none of a message")
    whole: Any = content if isinstance(content, str) else _parts(content, f"{where}.content")
    return {"role": "user" if role == "user" else "system", "content": whole}


def _parts(content: Any, where: str) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    for number, part in enumerate(as_list(content, where)):
        at = f"{where}[{number}]"
        part = as_object(part, at)
        kind = part.get("type")
        if kind in ("input_text", "output_text", "text"):
            parts.append({"type": "text", "text": as_text(part.get("text"), f"{at}.text")})
        elif kind == "input_image" and part.get("image_url"):
            image = present(url=as_text(part["image_url"], f"{at}.image_url"), detail=part.get("detail"))
            parts.append({"type": "image_url", "image_url": image})
        elif kind == "input_file" and part.get("file_data"):
            file = present(filename=part.get("filename"), file_data=as_text(part["file_data"], f"{at}.file_data"))
            parts.append({"type": "file", "file": file})
        else:
            refuse(at, f"a part of type {kind!r}, as it is, has no counterpart at the engine that would serve this")
    return parts


def _said_text(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    texts = []
    for number, part in enumerate(as_list(content, where)):
        part = as_object(part, f"{where}[{number}]")
        key = "refusal" if part.get("type") == "refusal" else "text"
        texts.append(as_text(part.get(key), f"{where}[{number}].{key}"))
    return "".join(texts)


def _call(item: Mapping[str, Any], where: str) -> dict[str, Any]:
    name, arguments = (as_text(item.get(key), f"{where}.{key}") for key in ("name", "arguments"))
    function = {"name": name, "arguments": arguments}
    return {"id": as_text(item.get("call_id"), f"{where}.call_id"), "type": "function", "function": function}


def _thought(item: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Thinking that an engine of ours did, with what another model signed of it. What OpenAI has encrypted only its
    own engines can read."""
    sealed = item.get("encrypted_content")
    blocks: Any = None
    if isinstance(sealed, str) and sealed:
        if not sealed.startswith(SIGNED):
            refuse(f"{where}.encrypted_content", "only the model that thought this can go on with it")
        try:
            blocks = msgspec.json.decode(b64decode(sealed.removeprefix(SIGNED)))
        except ValueError:
            refuse(f"{where}.encrypted_content", "can't be read")
    texts = [part.get("text") for part in item.get("content") or item.get("summary") or () if isinstance(part, dict)]
    return present(reasoning_content="".join(filter(None, texts)) or None, thinking_blocks=blocks)


# The answer


def answer(completion: Mapping[str, Any], fields: Mapping[str, Any], now_s: int) -> dict[str, Any]:
    """A whole answer.

    Args:
        completion: an answer of chat.
        fields: of the request that the client sent.
        now_s: seconds since 1970, for ``created_at``.

    Raises:
        Garbled: it is none of chat.
    """
    choices = completion.get("choices")
    if not isinstance(choices, list) or not choices:
        raise Garbled("the engine's answer has no choices")
    said = choices[0].get("message") or {}
    own = identifier(completion.get("id"))
    output: list[dict[str, Any]] = []
    thought, blocks = said.get("reasoning_content") or said.get("reasoning"), said.get("thinking_blocks")
    if thought or blocks:
        output.append(reasoning_item(f"rs_{own}", thought or "", blocks, fields))
    if said.get("content") or said.get("refusal"):
        output.append(message_item(f"msg_{own}", said.get("content"), said.get("refusal")))
    for number, call in enumerate(said.get("tool_calls") or ()):
        function = call.get("function") or {}
        output.append(
            call_item(f"fc_{own}_{number}", call.get("id"), function.get("name"), function.get("arguments") or "")
        )
    return response(completion, fields, now_s, output, choices[0].get("finish_reason"))


def response(
    about: Mapping[str, Any],
    fields: Mapping[str, Any],
    now_s: int,
    output: list[dict[str, Any]],
    finish_reason: str | None,
) -> dict[str, Any]:
    """The response object.

    Args:
        about: with the engine's ``id``, ``model`` and ``usage``.
        finish_reason: chat's; ``None`` while the answer is being made.
    """
    why = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(finish_reason or "")
    status = "in_progress" if finish_reason is None else "incomplete" if why else "completed"
    defaults = {"tools": [], "tool_choice": "auto", "parallel_tool_calls": True, "metadata": {}}
    echoed = {name: fields[name] for name in ECHOED if fields.get(name) is not None}
    return {
        "id": f"resp_{identifier(about.get('id'))}",
        "object": "response",
        "created_at": now_s,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": why} if why else None,
        **dict.fromkeys(ECHOED),
        **defaults,
        **echoed,
        "text": {"format": {"type": "text"}} | (fields.get("text") or {}),
        "model": about.get("model"),
        "output": output,
        "previous_response_id": None,
        "store": False,
        "truncation": "disabled",
        "usage": usage(about["usage"]) if about.get("usage") else None,
    }


def identifier(engines: Any) -> str:
    """The engine's identifier without what it begins with in its API."""
    text = engines if isinstance(engines, str) and engines else "0"
    for beginning in ("chatcmpl-", "msg_", "gen-"):
        text = text.removeprefix(beginning)
    return text


def message_item(item: str, text: Any, refusal: Any = None, status: str = "completed") -> dict[str, Any]:
    """The item of what was said."""
    content: list[dict[str, Any]] = []
    if isinstance(text, str) and text:
        content.append({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
    if refusal:
        content.append({"type": "refusal", "refusal": refusal})
    return {"id": item, "type": "message", "role": "assistant", "status": status, "content": content}


def call_item(item: str, call: Any, name: Any, arguments: str, status: str = "completed") -> dict[str, Any]:
    """The item of a tool's call."""
    return {
        "id": item,
        "type": "function_call",
        "call_id": call,
        "name": name,
        "arguments": arguments,
        "status": status,
    }


def reasoning_item(item: str, text: str, blocks: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The item of what was thought; with what was signed of it, where the client asked for what it has to hand back."""
    content = [{"type": "reasoning_text", "text": text}] if text else []
    made: dict[str, Any] = {"id": item, "type": "reasoning", "summary": [], "content": content}
    if blocks and SIGNED_THOUGHTS in (fields.get("include") or ()):
        made["encrypted_content"] = SIGNED + b64encode(msgspec.json.encode(blocks)).decode()
    return made


def usage(counts: Mapping[str, Any]) -> dict[str, Any]:
    """The same counts by the names that responses have for them."""
    details = counts.get("prompt_tokens_details") or {}
    prompt, completion = count(counts.get("prompt_tokens")), count(counts.get("completion_tokens"))
    thought = count((counts.get("completion_tokens_details") or {}).get("reasoning_tokens"))
    read, written = count(details.get("cached_tokens")), count(details.get("cache_write_tokens"))
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": read, "cache_write_tokens": written},
        "output_tokens": completion,
        "output_tokens_details": {"reasoning_tokens": thought},
        "total_tokens": prompt + completion,
    }


class Stream(EventTranslator):
    """A stream of chunks, as the events of a response.

    Args:
        fields: of the request that the client sent.
        now_s: seconds since 1970, for ``created_at``.
    """

    def __init__(self, fields: Mapping[str, Any], now_s: int) -> None:
        super().__init__()
        self._fields = fields
        self._now_s = now_s
        self._about: dict[str, Any] = {}
        self._number = 0
        """Of the next event."""
        self._output: list[dict[str, Any]] = []
        """Items that are whole."""
        self._item: dict[str, Any] | None = None
        """The one that is open."""
        self._text: list[str] = []
        """Of the open item."""
        self._part = "output_text"
        """What the open message's part is."""
        self._call = -1
        """The number of the open call."""
        self._blocks: list[Any] = []
        """Of signed thinking."""
        self._reason: str | None = None

    def translate(self, name: bytes, data: bytes) -> bytes:
        if data == DONE:
            return self._end()
        chunk = decoded(data)
        if error := engines_error(chunk, name):
            self.has_ended = True
            failed = {"code": "server_error", "message": error.message}
            return self._starts(chunk) + self._emit(
                "response.failed", response=self._response() | {"status": "failed", "error": failed}
            )
        events = [self._starts(chunk)]
        if chunk.get("usage"):
            self._about["usage"] = chunk["usage"]
        for choice in chunk.get("choices") or ():
            if choice.get("index") in (0, None):
                events += self._delta(choice.get("delta") or {})
                self._reason = choice.get("finish_reason") or self._reason
        return b"".join(events)

    def end(self) -> bytes:
        """Some engines leave out the last event; that they told why they ended is enough."""
        if not self.has_ended and self._reason is not None:
            return self._end()
        return super().end()

    def _starts(self, chunk: Mapping[str, Any]) -> bytes:
        if self._about:
            return b""
        self._about = {"id": chunk.get("id"), "model": chunk.get("model")}
        begun = self._response()
        return self._emit("response.created", response=begun) + self._emit("response.in_progress", response=begun)

    def _delta(self, delta: Mapping[str, Any]) -> Iterator[bytes]:
        if isinstance(delta.get("thinking_blocks"), list):
            self._blocks += delta["thinking_blocks"]
        if thought := delta.get("reasoning_content") or delta.get("reasoning"):
            yield from self._opens("reasoning", "reasoning_text")
            yield self._adds("response.reasoning_text.delta", thought, content_index=0)
        for key, part in (("content", "output_text"), ("refusal", "refusal")):
            if text := delta.get(key):
                yield from self._opens("message", part)
                more: dict[str, Any] = {"logprobs": []} if part == "output_text" else {}
                yield self._adds(f"response.{part}.delta", text, content_index=0, **more)
        for call in delta.get("tool_calls") or ():
            function = call.get("function") or {}
            yield from self._opens_call(call, function)
            if function.get("arguments"):
                yield self._adds("response.function_call_arguments.delta", function["arguments"])

    def _opens(self, kind: str, part: str) -> Iterator[bytes]:
        """Have an item of a kind open, with a part of a kind."""
        if self._item is not None and self._item["type"] == kind and self._part == part:
            return
        yield from self._closes()
        own = identifier(self._about["id"])
        if kind == "message":
            self._item = message_item(f"msg_{own}_{len(self._output)}", None, status="in_progress")
        else:
            self._item = reasoning_item(f"rs_{own}_{len(self._output)}", "", None, self._fields)
        self._part = part
        yield self._of_item("response.output_item.added", item=self._item)
        yield self._of_item("response.content_part.added", id_too=True, content_index=0, part=self._as_part(""))

    def _opens_call(self, call: Mapping[str, Any], function: Mapping[str, Any]) -> Iterator[bytes]:
        number = call.get("index") or 0
        if self._item is not None and self._item["type"] == "function_call" and number == self._call:
            return
        if number < self._call:
            raise Garbled("its stream mixes the arguments of two calls")
        yield from self._closes()
        item = f"fc_{identifier(self._about['id'])}_{len(self._output)}"
        self._call = number
        self._item = call_item(item, call.get("id"), function.get("name"), "", "in_progress")
        yield self._of_item("response.output_item.added", item=self._item)

    def _closes(self) -> Iterator[bytes]:
        """Say the open item's end."""
        item, text = self._item, "".join(self._text)
        if item is None:
            return
        if item["type"] == "function_call":
            whole = item | {"arguments": text, "status": "completed"}
            done = {"arguments": text, "name": item["name"]}
            yield self._of_item("response.function_call_arguments.done", id_too=True, **done)
        else:
            part = self._as_part(text)
            if item["type"] == "reasoning":
                whole = reasoning_item(item["id"], text, self._blocks, self._fields)
                self._blocks = []
                done = {"text": text}
            else:
                whole = item | {"content": [part], "status": "completed"}
                done = {"refusal": text} if self._part == "refusal" else {"text": text, "logprobs": []}
            yield self._of_item(f"response.{self._part}.done", id_too=True, content_index=0, **done)
            yield self._of_item("response.content_part.done", id_too=True, content_index=0, part=part)
        yield self._of_item("response.output_item.done", item=whole)
        self._output.append(whole)
        self._item = None
        self._text.clear()

    def _as_part(self, text: str) -> dict[str, Any]:
        if self._part == "output_text":
            return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        return {"type": self._part, ("refusal" if self._part == "refusal" else "text"): text}

    def _adds(self, kind: str, text: str, **more: Any) -> bytes:
        self._text.append(text)
        return self._of_item(kind, id_too=True, delta=text, **more)

    def _of_item(self, kind: str, id_too: bool = False, **fields: Any) -> bytes:
        assert self._item is not None  # whoever calls this has opened one
        identified = {"item_id": self._item["id"]} if id_too else {}
        return self._emit(kind, output_index=len(self._output), **identified, **fields)

    def _emit(self, kind: str, **fields: Any) -> bytes:
        self._number += 1
        return named(kind, {"type": kind, "sequence_number": self._number - 1, **fields})

    def _response(self, finish_reason: str | None = None) -> dict[str, Any]:
        return response(self._about, self._fields, self._now_s, list(self._output), finish_reason)

    def _end(self) -> bytes:
        if not self._about or self._reason is None:
            raise Garbled("its stream ended without a reason")
        self.has_ended = True
        closing = b"".join(self._closes())
        whole = self._response(self._reason)
        return closing + self._emit(f"response.{whole['status']}", response=whole)
