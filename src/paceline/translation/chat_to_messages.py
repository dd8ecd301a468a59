"""Clients that speak OpenAI's chat completions, before engines that speak Anthropic's messages.

Sources: the references of both APIs, and the types of both SDKs (``openai`` 3.57, ``anthropic`` 2.14).
``reasoning_content`` is DeepSeek's, llama.cpp's and vLLM's field for thinking; ``thinking_blocks`` is LiteLLM's for
thinking with its signature, which an agent that sends its messages back unchanged hands back with them.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from paceline.translation.errors import engines_error, error_document
from paceline.translation.flavour import Flavour
from paceline.translation.parts import (
    Meaningful,
    as_arguments,
    as_json,
    as_list,
    as_object,
    as_text,
    check,
    count,
    data_url,
    each,
    present,
    refuse,
    short_id,
)
from paceline.translation.streams import DONE, EventTranslator, decoded, unnamed
from paceline.types import Api

KNOWN = frozenset(
    "model messages max_tokens max_completion_tokens temperature top_p top_k stop stream stream_options tools "
    "tool_choice parallel_tool_calls response_format reasoning_effort user safety_identifier service_tier".split()
)
"""Fields that are translated."""
HINTS = frozenset(
    "prediction prompt_cache_key prompt_cache_retention prompt_cache_options store metadata verbosity".split()
)
"""Fields that change no answer, or its style alone, and are left out."""
MEANINGFUL: Meaningful = dict.fromkeys(
    # Of OpenAI's, and then of llama.cpp, vLLM, SGLang and OpenRouter.
    "seed audio function_call web_search_options moderation "
    "grammar json_schema guided_json guided_regex guided_choice guided_grammar structured_outputs regex ebnf "
    "structural_tag n_probs prompt_logprobs min_p top_a top_n_sigma typical_p mirostat repeat_penalty "
    "repetition_penalty dry_multiplier xtc_probability min_tokens ignore_eos stop_token_ids bad_words "
    "allowed_token_ids logits_processors best_of use_beam_search samplers lora chat_template chat_template_kwargs "
    "continue_final_message documents echo reasoning thinking enable_thinking thinking_budget plugins models".split(),
    (),
) | {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "modalities": (["text"],),
    "functions": ([],),
}
EFFORTS: Mapping[str, str] = {name: name for name in ("low", "medium", "high", "xhigh", "max")} | {"minimal": "low"}
"""Of ``reasoning_effort``, as ``output_config.effort`` has them."""
SERVICE_TIERS: Mapping[str, str] = {"auto": "auto", "default": "standard_only"}
"""The others tell how soon an answer is wanted, and nothing of it."""
MAX_USER_CHARS = 256
"""Of ``metadata.user_id``, at Anthropic."""
FINISH_REASONS: Mapping[str, str] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
"""By ``stop_reason``."""


# The request


def request(fields: Mapping[str, Any], flavour: Flavour) -> dict[str, Any]:
    """The body for the engine.

    Raises:
        Untranslatable: it asks for something that messages have no words for.
    """
    check(fields, MEANINGFUL)
    system, turns = _turns(as_list(fields.get("messages"), "messages"))
    if turns and turns[-1]["role"] == "assistant":
        refuse("messages", "end with the assistant's; the engine that would serve this would go on with that")
    max_tokens = fields.get("max_completion_tokens") or fields.get("max_tokens") or flavour.default_max_tokens
    temperature, user = fields.get("temperature"), fields.get("safety_identifier") or fields.get("user")
    if isinstance(temperature, int | float) and temperature > 1:
        refuse("temperature", f"is {temperature:g}; the engine that would serve this speaks an API that goes to 1")
    stop, tier = fields.get("stop"), fields.get("service_tier")
    output = _output(fields)
    goes_on = any(turn["role"] == "assistant" for turn in turns)
    return present(
        model=fields.get("model"),
        max_tokens=max_tokens,
        system=system or None,
        messages=turns,
        temperature=temperature,
        top_p=fields.get("top_p"),
        top_k=fields.get("top_k"),
        stop_sequences=[stop] if isinstance(stop, str) else stop or None,
        stream=fields.get("stream"),
        tools=each(fields.get("tools"), _tool, "tools"),
        tool_choice=_tool_choice(fields),
        thinking=_thinking(fields),
        output_config=output or None,
        metadata={"user_id": short_id(user, MAX_USER_CHARS)} if user else None,
        service_tier=SERVICE_TIERS.get(tier) if isinstance(tier, str) else None,
        cache_control={"type": "ephemeral"} if flavour.caches and goes_on else None,
    )


def _output(fields: Mapping[str, Any]) -> dict[str, Any]:
    """``output_config``: the form of the answer, and the effort."""
    output: dict[str, Any] = {}
    wanted = as_object(fields.get("response_format") or {"type": "text"}, "response_format")
    if wanted.get("type") == "json_schema":
        schema = as_object(wanted.get("json_schema"), "response_format.json_schema").get("schema")
        output["format"] = {"type": "json_schema", "schema": as_object(schema, "response_format.json_schema.schema")}
    elif wanted.get("type") != "text":
        refuse(
            "response_format",
            f"the engine that would serve this has no {wanted.get('type')!r}, but json_schema",
        )
    effort = fields.get("reasoning_effort")
    if isinstance(effort, str) and effort in EFFORTS:
        output["effort"] = EFFORTS[effort]
    elif effort not in (None, "none"):
        refuse("reasoning_effort", f"there is no {effort!r} at the engine that would serve this")
    return output


def _thinking(fields: Mapping[str, Any]) -> dict[str, Any] | None:
    effort = fields.get("reasoning_effort")
    return None if effort is None else {"type": "disabled" if effort == "none" else "adaptive"}


def _tool(tool: Any, where: str) -> dict[str, Any]:
    tool = as_object(tool, where)
    if tool.get("type") != "function":
        refuse(where, f"a tool of type {tool.get('type')!r} has no counterpart at the engine that would serve this")
    function = as_object(tool.get("function"), f"{where}.function")
    return present(
        name=as_text(function.get("name"), f"{where}.function.name"),
        description=function.get("description"),
        input_schema=function.get("parameters") or {"type": "object", "properties": {}},
        strict=function.get("strict") or None,
    )


def _tool_choice(fields: Mapping[str, Any]) -> dict[str, Any] | None:
    choice, one_at_a_time = fields.get("tool_choice"), fields.get("parallel_tool_calls") is False
    if not fields.get("tools"):
        return None
    if choice == "none":
        return {"type": "none"}
    if choice is None or choice == "auto":
        translated: dict[str, Any] = {"type": "auto"}
    elif choice == "required":
        translated = {"type": "any"}
    elif isinstance(choice, dict) and choice.get("type") == "function":
        function = as_object(choice.get("function"), "tool_choice.function")
        translated = {"type": "tool", "name": as_text(function.get("name"), "tool_choice.function.name")}
    else:
        refuse("tool_choice", "has no counterpart at the engine that would serve this")
    if one_at_a_time:
        translated["disable_parallel_tool_use"] = True
    return translated if one_at_a_time or choice is not None else None


def _turns(messages: list[Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The system prompt's blocks, and the turns. What follows one another for the same role is one turn, since the
    results of tools have to stand together, and before what the user says next."""
    system: list[dict[str, Any]] = []
    turns: list[dict[str, Any]] = []
    for number, message in enumerate(messages):
        where = f"messages[{number}]"
        message = as_object(message, where)
        role = message.get("role")
        if message.get("name") is not None and role != "tool":
            refuse(f"{where}.name", "the engine that would serve this speaks another API, which has no such field")
        if role in ("system", "developer"):
            blocks = list(_content(message.get("content"), f"{where}.content"))
            if turns:
                turns.append({"role": "system", "content": blocks})
            else:
                system += blocks
            continue
        if role == "user":
            blocks = list(_content(message.get("content"), f"{where}.content"))
        elif role == "assistant":
            blocks = list(_said(message, where))
        elif role == "tool":
            role, blocks = "user", [_tool_result(message, where)]
        else:
            refuse(f"{where}.role", f"is {role!r}, which the engine that would serve this does not know")
        if not blocks:
            continue
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": blocks})
    return system, turns


def _content(content: Any, where: str) -> Iterator[dict[str, Any]]:
    if isinstance(content, str):
        if content:
            yield {"type": "text", "text": content}
        return
    for number, part in enumerate(as_list(content, where)):
        at = f"{where}[{number}]"
        part = as_object(part, at)
        kind = part.get("type")
        if kind in ("text", "refusal"):
            if text := as_text(part.get(kind), f"{at}.{kind}"):
                yield {"type": "text", "text": text}
        elif kind == "image_url":
            image = part.get("image_url")
            url = as_text(image.get("url") if isinstance(image, dict) else image, f"{at}.image_url.url")
            yield {"type": "image", "source": _source(url, f"{at}.image_url.url")}
        elif kind == "file":
            file = as_object(part.get("file"), f"{at}.file")
            if not isinstance(file.get("file_data"), str):
                refuse(f"{at}.file", "is no file_data: what is stored with another engine can't be sent")
            source = _source(file["file_data"], f"{at}.file.file_data")
            yield present(type="document", source=source, title=file.get("filename"))
        else:
            refuse(at, f"a part of type {kind!r} has no counterpart at the engine that would serve this")


def _source(url: str, where: str) -> dict[str, Any]:
    if data := data_url(url, where):
        return {"type": "base64", "media_type": data[0], "data": data[1]}
    return {"type": "url", "url": url}


def _said(message: Mapping[str, Any], where: str) -> Iterator[dict[str, Any]]:
    """What the assistant thought, said and called. Thinking without a signature was another model's; an engine that
    signs its own does not take it."""
    for block in message.get("thinking_blocks") or ():
        block = as_object(block, f"{where}.thinking_blocks")
        if block.get("signature") or block.get("type") == "redacted_thinking":
            yield block
    content = message.get("content")
    if content is not None:
        yield from _content(content, f"{where}.content")
    elif isinstance(message.get("refusal"), str) and message["refusal"]:
        yield {"type": "text", "text": message["refusal"]}
    for name in ("function_call", "audio"):
        if message.get(name) is not None:
            refuse(f"{where}.{name}", "has no counterpart at the engine that would serve this")
    for number, call in enumerate(message.get("tool_calls") or ()):
        at = f"{where}.tool_calls[{number}]"
        call = as_object(call, at)
        if call.get("type", "function") != "function":
            refuse(at, f"a call of type {call.get('type')!r} has no counterpart at the engine that would serve this")
        function = as_object(call.get("function"), f"{at}.function")
        arguments = as_text(function.get("arguments", ""), f"{at}.function.arguments")
        yield {
            "type": "tool_use",
            "id": as_text(call.get("id"), f"{at}.id"),
            "name": as_text(function.get("name"), f"{at}.function.name"),
            "input": as_arguments(arguments, f"{at}.function.arguments"),
        }


def _tool_result(message: Mapping[str, Any], where: str) -> dict[str, Any]:
    content = message.get("content")
    blocks = content if isinstance(content, str) else list(_content(content, f"{where}.content"))
    call = as_text(message.get("tool_call_id"), f"{where}.tool_call_id")
    return {"type": "tool_result", "tool_use_id": call, "content": blocks}


# The answer


def answer(message: Mapping[str, Any], now_s: int) -> dict[str, Any]:
    """A whole answer.

    Args:
        now_s: seconds since 1970, for ``created``.
    """
    text: list[str] = []
    thoughts: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    for block in message.get("content") or ():
        kind = block.get("type")
        if kind == "text":
            text.append(block.get("text") or "")
        elif kind in ("thinking", "redacted_thinking"):
            thoughts.append(block)
        elif kind == "tool_use":
            function = {"name": block.get("name"), "arguments": as_json(block.get("input") or {})}
            calls.append({"id": block.get("id"), "type": "function", "function": function})
    said: dict[str, Any] = {"role": "assistant", "content": "".join(text) if text else None, "refusal": None}
    if thoughts:
        said["reasoning_content"] = "".join(block.get("thinking") or "" for block in thoughts)
        said["thinking_blocks"] = thoughts
    if calls:
        said["tool_calls"] = calls
    reason = FINISH_REASONS.get(message.get("stop_reason") or "", "stop")
    return {
        "id": message.get("id"),
        "object": "chat.completion",
        "created": now_s,
        "model": message.get("model"),
        "choices": [{"index": 0, "message": said, "logprobs": None, "finish_reason": reason}],
        "usage": usage(message.get("usage") or {}),
    }


def usage(counts: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAI counts what was read from a cache and written to it within the prompt; Anthropic beside it."""
    read, written = count(counts.get("cache_read_input_tokens")), count(counts.get("cache_creation_input_tokens"))
    prompt, completion = count(counts.get("input_tokens")) + read + written, count(counts.get("output_tokens"))
    translated: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": read, "cache_write_tokens": written},
    }
    thought = (counts.get("output_tokens_details") or {}).get("thinking_tokens")
    if thought is not None:
        translated["completion_tokens_details"] = {"reasoning_tokens": count(thought)}
    return translated


class Stream(EventTranslator):
    """A stream of messages' events, as chunks.

    Args:
        tells_usage: whether the client asked for the chunk with the usage.
        now_s: seconds since 1970, for ``created``.
    """

    def __init__(self, *, tells_usage: bool, now_s: int) -> None:
        super().__init__()
        self._tells_usage = tells_usage
        self._head: dict[str, Any] = {"id": None, "object": "chat.completion.chunk", "created": now_s, "model": None}
        self._usage: dict[str, Any] = {}
        self._calls = -1
        """The number of the last tool's call."""
        self._thinking: dict[str, Any] | None = None
        """The block of thinking that is open."""

    def translate(self, name: bytes, data: bytes) -> bytes:
        event = decoded(data)
        kind = event.get("type")
        if kind == "content_block_delta":
            return self._delta(event.get("delta") or {})
        if kind == "content_block_start":
            return self._start(event.get("content_block") or {})
        if kind == "content_block_stop":
            thinking, self._thinking = self._thinking, None
            return self._chunk({"thinking_blocks": [thinking]}) if thinking else b""
        if kind == "message_start":
            message = event.get("message") or {}
            self._head |= {"id": message.get("id"), "model": message.get("model")}
            self._usage = dict(message.get("usage") or {})
            return self._chunk({"role": "assistant", "content": "", "refusal": None})
        if kind == "message_delta":
            self._usage |= {key: value for key, value in (event.get("usage") or {}).items() if value is not None}
            reason = (event.get("delta") or {}).get("stop_reason")
            return self._chunk({}, FINISH_REASONS.get(reason, "stop")) if reason else b""
        if kind == "message_stop":
            self.has_ended = True
            last = unnamed(self._head | {"choices": [], "usage": usage(self._usage)}) if self._tells_usage else b""
            return last + b"data: " + DONE + b"\n\n"
        if kind == "error" or name == b"error":
            self.has_ended = True
            error = engines_error(event, name)
            return unnamed(error_document(Api.OPENAI_CHAT, 502, error.message if error else "the engine failed"))
        return b": ping\n\n" if kind == "ping" else b""

    def _start(self, block: Mapping[str, Any]) -> bytes:
        kind = block.get("type")
        if kind == "tool_use":
            self._calls += 1
            function = {"name": block.get("name"), "arguments": ""}
            call = {"index": self._calls, "id": block.get("id"), "type": "function", "function": function}
            return self._chunk({"tool_calls": [call]})
        if kind in ("thinking", "redacted_thinking"):
            self._thinking = dict(block)
            thought = block.get("thinking")
            return self._chunk({"reasoning_content": thought}) if thought else b""
        return self._chunk({"content": block["text"]}) if kind == "text" and block.get("text") else b""

    def _delta(self, delta: Mapping[str, Any]) -> bytes:
        kind = delta.get("type")
        if kind == "text_delta":
            return self._chunk({"content": delta.get("text") or ""})
        if kind == "input_json_delta":
            function = {"arguments": delta.get("partial_json") or ""}
            return self._chunk({"tool_calls": [{"index": max(0, self._calls), "function": function}]})
        if kind == "thinking_delta":
            thought = delta.get("thinking") or ""
            if self._thinking is not None:
                self._thinking["thinking"] = self._thinking.get("thinking", "") + thought
            return self._chunk({"reasoning_content": thought})
        if kind == "signature_delta" and self._thinking is not None:
            self._thinking["signature"] = delta.get("signature")
        return b""

    def _chunk(self, delta: Mapping[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        chunk = self._head | {"choices": [choice]}
        return unnamed(chunk | {"usage": None} if self._tells_usage else chunk)
