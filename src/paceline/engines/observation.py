"""What an answer tells about its making, read while its bytes pass by, in bounded memory and time."""

import json
import re
from collections import deque
from math import isfinite
from typing import Any

from paceline.engines.answered import answered
from paceline.types import Answered, Observation

HEAD_BYTES = 8 * 1024
TAIL_BYTES = 32 * 1024
"""Reports of usage stand in the first event of a stream (Anthropic) and in the last ones."""
REPORT_BYTES = 8 * 1024
"""No report is longer."""

_WITHOUT_TOKEN = re.compile(rb'\A:|"role":|message_start|response\.(?:created|in_progress|output_item\.added)')
_WITH_TOKEN = re.compile(rb'"(?:content|text|delta|reasoning_content|thinking|partial_json|arguments)": ?"[^"]')
_decoder = json.JSONDecoder()


class Observer:
    """Watches one answer.

    An engine that reports ``timings`` (llama.cpp) is believed; of one that reports only ``usage``, the time of
    a stream is taken from the clock: the first token's arrival ends the prefill, the last byte ends the decoding.

    Args:
        counts_drafts: whether the engine drafts and reports it with its ``timings``, leaving it out where it is zero.
    """

    def __init__(self, streamed: bool, counts_drafts: bool = False) -> None:
        self._streamed = streamed
        self._counts_drafts = counts_drafts
        self._head = b""
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0
        self._first_token_s: float | None = None
        self._last_s: float | None = None
        self.clock_is_valid = True
        """Set to false by whoever could not keep up with the engine: the times of the pieces mean nothing then."""

    def feed(self, piece: bytes, at_s: float) -> None:
        """Take in a piece of the answer's body that arrived ``at_s`` seconds after the request was sent."""
        if len(self._head) < HEAD_BYTES:
            self._head += piece[: HEAD_BYTES - len(self._head)]
        self._tail.append(piece)
        self._tail_bytes += len(piece)
        while self._tail_bytes - len(self._tail[0]) >= TAIL_BYTES:
            self._tail_bytes -= len(self._tail.popleft())
        if self._streamed:
            if self._first_token_s is None and (not _WITHOUT_TOKEN.search(piece) or _WITH_TOKEN.search(piece)):
                self._first_token_s = at_s
            self._last_s = at_s

    def shown(self, events: bytes) -> bytes:
        """Of whole events of a stream, those that the client shall see."""
        return events

    def report(self, name: bytes) -> dict[str, Any]:
        """The last JSON object under a key near the end of the answer; empty where there is none."""
        return _last_report(b"".join(self._tail), name)

    def answered(self) -> Answered:
        """What the answer says of itself, as far as it is known now."""
        return answered(self._head, b"".join(self._tail))

    def observation(self) -> Observation:
        """What is known now; meant to be asked once, at the end of the answer."""
        tail = b"".join(self._tail)
        usage = _last_report(self._head, b'"usage"') | _last_report(tail, b'"usage"')
        timings = _last_report(tail, b'"timings"')
        if "predicted_n" in timings:
            none_drafted = {"draft_n": 0, "draft_n_accepted": 0} if self._counts_drafts else {}
            return _from_timings(none_drafted | timings)
        return self._from_usage(usage)

    def _from_usage(self, usage: dict[str, Any]) -> Observation:
        """OpenAI's and Anthropic's names for the same counts.

        OpenAI counts cached tokens within the prompt's, Anthropic beside them.
        """
        prompt, completion = count(usage, "prompt_tokens"), count(usage, "completion_tokens")
        if prompt is None:
            prompt = count(usage, "input_tokens")
        if completion is None:
            completion = count(usage, "output_tokens")
        details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
        cached = count(details, "cached_tokens") if isinstance(details, dict) else None
        if cached is not None and prompt is not None:
            prompt = max(0, prompt - cached)
        if "cache_read_input_tokens" in usage:
            cached = count(usage, "cache_read_input_tokens")
        prefill_s = decode_s = decode_tokens = None
        if self.clock_is_valid and self._first_token_s is not None and self._last_s is not None:
            prefill_s = self._first_token_s
            if completion is not None and completion > 1:
                decode_tokens, decode_s = completion - 1, self._last_s - self._first_token_s
        return Observation(prompt, cached, completion, prefill_s, decode_tokens, decode_s)


def _from_timings(timings: dict[str, Any]) -> Observation:
    """llama.cpp's report (``server_slot::get_timings`` in its tools/server). It counts the first token's decoding
    with the prompt, so ``predicted_ms`` covers one token fewer than ``predicted_n``. The draft counts are absent
    when nothing was drafted; how many steps drafted is told by our build only."""
    predicted = count(timings, "predicted_n")
    predicted_s, prompt_s = milliseconds(timings, "predicted_ms"), milliseconds(timings, "prompt_ms")
    return Observation(
        prompt_tokens=count(timings, "prompt_n"),
        cached_tokens=count(timings, "cache_n"),
        completion_tokens=predicted,
        prefill_s=prompt_s,
        decode_tokens=predicted - 1 if predicted else None,
        decode_s=predicted_s,
        drafted=count(timings, "draft_n"),
        accepted=count(timings, "draft_n_accepted"),
        drafting_steps=count(timings, "draft_n_steps"),
    )


def _last_report(data: bytes, name: bytes) -> dict[str, Any]:
    """The last JSON object under the key ``name``; empty where there is none.

    The answer's own text can't pass for it: inside a JSON string the quotes of a key are escaped.
    """
    end = len(data)
    while (at := data.rfind(name, 0, end)) >= 0:
        end = at
        text = data[at + len(name) : at + len(name) + REPORT_BYTES].decode("utf-8", "replace").lstrip()
        if not text.startswith(":"):
            continue
        try:
            found, _ = _decoder.raw_decode(text[1:].lstrip())
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            return found
    return {}


def count(report: dict[str, Any], key: str) -> int | None:
    """A whole number from 0 on; ``None`` for all else."""
    value = report.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def milliseconds(report: dict[str, Any], key: str) -> float | None:
    """In seconds."""
    value = seconds(report, key)
    return None if value is None else value / 1000


def seconds(report: dict[str, Any], key: str) -> float | None:
    """A finite number from 0 on; ``None`` for all else."""
    value = report.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool) or not isfinite(value) or value < 0:
        return None
    return value
