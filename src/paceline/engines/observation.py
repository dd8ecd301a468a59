"""What an answer tells about its making, read while its bytes pass by, in bounded memory and time."""

import json
from collections import deque
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import msgspec
from msgspec.structs import replace

from paceline.engines import dialects
from paceline.engines.answered import answered
from paceline.engines.events import Beginning, EventReader, Part, name_and_data
from paceline.engines.token_clock import UNKNOWN, Times, TokenClock
from paceline.types import Answered, DraftCounts, Observation, Request

HEAD_BYTES = 8 * 1024
"""Of an answer's beginning, that are kept: its identifier and model stand there."""
TAIL_BYTES = 32 * 1024
"""Reports of usage stand in the first event of a stream (Anthropic) and in the last ones, or at a document's end."""
MAX_REPORT_BYTES = 8 * 1024
"""Hardly any report is longer."""
MAX_REPORTS_TRIED = 64
"""Places where a report may begin, from the end on; an answer that only looks like reports costs no more."""
MAX_COUNT = 10**9
"""Of tokens, or of a time's units; a larger number is none."""
MAX_POSITIONS, MAX_DRAFTERS = 256, 16
"""Of a draft, and of an answer; no engine has more."""
MAX_DECODE_TOKENS_PER_S, MAX_PREFILL_TOKENS_PER_S = 1e5, 1e7
"""Faster than any hardware; an engine that says so has measured nothing. (llama.cpp tells 0.001 ms for the decoding of
answers with one token.)"""

_QUOTE, _BACKSLASH = b'"\\'
_PINGS = frozenset(("ping", "keepalive", "keep-alive", "heartbeat"))
_decoder = json.JSONDecoder()


class Observer:
    """Watches one answer, and passes on of a stream what the client shall see.

    An engine that reports ``timings`` (llama.cpp) is believed as far as that can be; of one that reports only
    ``usage``, the time of a stream is taken from the clock, where that can know it (``token_clock.py``).

    Args:
        counts_drafts: whether the engine drafts and reports it with its ``timings``, leaving it out where it is zero.
        kind_of: the kind of a drafter by the engine's name for it.
    """

    reports: tuple[bytes, ...] = (b'"usage"', b'"timings"')
    """Keys of the objects that an event may report; events without them are not kept."""
    longest_report = MAX_REPORT_BYTES
    """Bytes of the longest of these objects that is read."""

    def __init__(
        self, request: Request, counts_drafts: bool = False, kind_of: Callable[[str], str] | None = None
    ) -> None:
        self.is_stream = request.stream
        """Whether the answer is a stream of events; to be corrected by its content type before the first piece."""
        self.clock_is_valid = True
        """Set to false by whoever could not keep up with the engine: the times of the pieces mean nothing then."""
        self.error: str | None = None
        """The error that the answer told of, although it began as a success: in one line, bounded. Such an answer is
        not learned from."""
        self.error_is_clients = False
        """Whether the engine said that the request was wrong, so that no other engine would serve it."""
        self.has_begun = False
        """Whether a stream has had its first event; comments and pings are none."""
        self.hides_usage = False
        """Whether a chunk that tells nothing but usage is taken out of a stream."""
        self._counts_drafts = counts_drafts
        self._kind_of = kind_of or str
        self._has_several = asks_for_several(request)
        self._reader = EventReader()
        self._hid_the_last = False
        self._clock = TokenClock()
        self._mark = b""
        """How the text begins in the events that hold it now: ``"content":"``. While it stands in an event, and text
        behind it, the event need not be decoded to know that it holds text."""
        self._around_text = 0
        """Bytes of such an event beside its text."""
        self._before_text = self._after_text = b""
        """What stands in such an event before and behind the text. Most streams repeat that to the letter, so that an
        event between the two is known to hold text and nothing else, at the least cost."""
        self._is_between_events = True
        self._saw_thought = False
        self._watched = (*self.reports, b"error")
        self._head = b""
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0

    def feed(self, piece: bytes, at_s: float) -> bytes:
        """Take in a piece of the answer's body that arrived ``at_s`` seconds after the request was sent. Returns what
        the client shall see by now: the same bytes, of a stream up to the end of its last whole event."""
        if not self.is_stream:
            if len(self._head) < HEAD_BYTES:
                self._head += piece[: HEAD_BYTES - len(self._head)]
            self._keep(piece)
            return piece
        if self._is_between_events and (text_bytes := self._repeated(piece)):
            self._clock.token(at_s, text_bytes)
            return piece
        events = self._reader.feed(piece)
        self._is_between_events = self._reader.is_between_events
        if len(events) == 1:
            return events[0] if self._take(events[0], at_s, is_alone=True) else b""
        return b"".join([event for event in events if self._take(event, at_s)])

    def end(self, at_s: float) -> bytes:
        """To be called at a stream's end; returns what is left for the client: an event without an end."""
        left = self._reader.end()
        return left if left and self._read(left, at_s) else b""

    def read_whole(self, body: bytes) -> None:
        """Look at a whole answer that is no stream, but JSON by its word, for an error."""
        if _may_be_error(body):
            self._note_error(_decoded(body), b"")
        if self.error is None and not _is_answer(body):
            self.error = "the answer is no JSON object, or not the whole of one"

    @property
    def head(self) -> bytes:
        """How the answer began, or of a stream its first event that reports anything."""
        return self._head

    @property
    def is_inside_event(self) -> bool:
        """Whether the client has the beginning of an event whose end it does not have yet."""
        return self._reader.is_inside

    def report(self, name: bytes) -> dict[str, Any]:
        """The last JSON object under a key near the end of the answer; empty where there is none."""
        return _last_report(b"".join(self._tail), name, self.longest_report)

    def answered(self) -> Answered:
        """What the answer says of itself, as far as it is known now."""
        return answered(self._head, b"".join(self._tail))

    def observation(self) -> Observation:
        """What is known now; meant to be asked once, at the end of the answer. Of one that is an error, nothing."""
        if self.error is not None:
            return Observation()
        observation = self._observed()
        drafted, accepted = observation.drafted, observation.accepted
        if (drafted is None) != (accepted is None) or (drafted is not None and (accepted or 0) > drafted):
            observation = replace(observation, drafted=None, accepted=None)
        return observation

    def _observed(self) -> Observation:
        """For the engines to extend with what they alone report."""
        timings = self.report(b'"timings"')
        if "predicted_n" in timings and not self._has_several:
            none_drafted = {"draft_n": 0, "draft_n_accepted": 0} if self._counts_drafts else {}
            return self._from_timings(none_drafted | timings)
        return self._from_usage(self._usage())

    def _with_times(self, observation: Observation, prefill_s: float | None, decode_s: float | None) -> Observation:
        """With times that the engine told, where they can be those of one answer; ``decode_s`` covers all tokens but
        the first."""
        if self._has_several:
            return observation
        prompt, completion = observation.prompt_tokens, observation.completion_tokens
        if prefill_s is not None and (prompt or 0) <= prefill_s * MAX_PREFILL_TOKENS_PER_S:
            observation = replace(observation, prefill_s=prefill_s)
        if decode_s is None or completion is None:
            return observation
        decoded = completion - 1
        if decoded < 1 or decoded > decode_s * MAX_DECODE_TOKENS_PER_S:
            return replace(observation, decode_tokens=None, decode_s=None)
        return replace(observation, decode_tokens=decoded, decode_s=decode_s)

    # Events

    def _take(self, event: bytes, at_s: float, is_alone: bool = False) -> bool:
        """Take in an event of a stream; whether the client shall see it.

        Args:
            is_alone: whether it came in a piece of its own, as the next ones may.
        """
        if isinstance(event, Part):
            return self._read(event, at_s)
        if text_bytes := self._repeated(event):
            self._clock.token(at_s, text_bytes)
            return True
        mark = self._mark
        if mark:
            text_at = event.find(mark) + len(mark)
            text_bytes = len(event) - self._around_text
            if text_at >= len(mark) and text_bytes > 0 and event[text_at] != _QUOTE:
                for watched in self._watched:
                    if watched in event:
                        break
                else:
                    self._clock.token(at_s, text_bytes)
                    if is_alone:
                        self._note_surroundings(event, text_at)
                    return True
        return self._read(event, at_s)

    def _repeated(self, event: bytes) -> int:
        """Bytes of text in an event that repeats to the letter what stood around the last text; 0 in any other."""
        before = self._before_text
        if before and event.startswith(before) and event.endswith(self._after_text):
            text_at, text_end = len(before), len(event) - len(self._after_text)
            if text_at < text_end == event.find(b'"', text_at):
                return text_end - text_at
        return 0

    def _read(self, event: bytes, at_s: float) -> bool:
        if isinstance(event, Part):
            self._take_part(event)
            return not self._hid_the_last
        self._hid_the_last = False
        if b"data" not in event and b"error" not in event:
            return True  # a comment, or less
        name, data = name_and_data(event)
        if not data or name.decode("latin-1") in _PINGS:
            return True
        document = _decoded(data)
        kind = document.get("type") if isinstance(document, dict) else None
        if isinstance(kind, str) and kind in _PINGS:
            return True
        self.has_begun = True
        if name == b"error" or _may_be_error(data):
            self._note_error(document, name)
        if not isinstance(document, dict):
            return True
        for report in self.reports:
            if report in data:
                self._head = self._head or data
                self._keep(data)
                break
        if dialects.has_several_choices(document):
            self._has_several = True
        if text := dialects.first_text(document):
            self._note_text(event, text, at_s)
        else:
            self._clock.other(at_s)
            if self.hides_usage and dialects.is_usage_only(document):
                self._mark = self._before_text = b""
                self._hid_the_last = True
        return not self._hid_the_last

    def _take_part(self, part: Part) -> None:
        """Of an event that is too long to be held and decoded: only reports are looked for. llama.cpp repeats the whole
        prompt in a stream's last event."""
        if isinstance(part, Beginning):
            self._hid_the_last = False
            name, data = name_and_data(part[:HEAD_BYTES])
            self.has_begun = self.has_begun or bool(data)
            if name == b"error" and self.error is None:
                self.error = "an error too long to be read"
        self._keep(part)

    def _note_text(self, event: bytes, added: dialects.Text, at_s: float) -> None:
        text = added.text
        text_bytes = len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
        self._clock.token(at_s, text_bytes)
        self._mark = self._before_text = b""
        if added.is_thought:
            self._saw_thought = True
        for mark in _marks(added.key):
            text_at = event.find(mark) + len(mark)
            if text_at >= len(mark) and event[text_at] != _QUOTE:
                self._mark, self._around_text = mark, len(event) - text_bytes
                self._note_surroundings(event, text_at)

    def _note_surroundings(self, event: bytes, text_at: int) -> None:
        text_end = event.find(b'"', text_at)
        if event.endswith(b"\n") and text_end > 0 and event[text_end - 1] != _BACKSLASH:
            self._before_text, self._after_text = event[:text_at], event[text_end:]

    def _note_error(self, document: Any, name: bytes) -> None:
        if self.error is None and (error := dialects.error_in(document, name)):
            self.error, self.error_is_clients = error.message, error.is_clients

    def _keep(self, data: bytes) -> None:
        self._tail.append(data)
        self._tail_bytes += len(data)
        while self._tail_bytes - len(self._tail[0]) >= TAIL_BYTES:
            self._tail_bytes -= len(self._tail.popleft())

    # Reports

    def _usage(self) -> dict[str, Any]:
        """Anthropic's stands at both ends of a stream; a whole answer has one."""
        last = self.report(b'"usage"')
        if (last and not self.is_stream) or (self._tail and self._head is self._tail[-1]):
            return last
        first = _last_report(self._head, b'"usage"')
        return first | {key: value for key, value in last.items() if value is not None}

    def _from_usage(self, usage: Mapping[str, Any]) -> Observation:
        """OpenAI's and Anthropic's names for the same counts.

        OpenAI counts cached tokens within the prompt's; Anthropic counts beside them those read from its cache and
        those written to it, which were processed like the others.
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
        written = count(details, "cache_write_tokens") if isinstance(details, dict) else None
        if "cache_read_input_tokens" in usage:
            cached = count(usage, "cache_read_input_tokens")
        if "cache_creation_input_tokens" in usage:
            written = count(usage, "cache_creation_input_tokens")
            if prompt is not None:
                prompt += written or 0
        times = self._times(usage, completion)
        return Observation(prompt, cached, completion, *times, cache_write_tokens=written)

    def _times(self, usage: Mapping[str, Any], completion: int | None) -> Times:
        if not self.is_stream or not self.clock_is_valid or self._has_several:
            return UNKNOWN
        details = usage.get("completion_tokens_details") or usage.get("output_tokens_details")
        thought = count(details, "reasoning_tokens") if isinstance(details, dict) else None
        if thought and not self._saw_thought:
            return UNKNOWN  # the first token that was sent is not the first that was made
        return self._clock.times(completion)

    def _from_timings(self, timings: Mapping[str, Any]) -> Observation:
        """llama.cpp's report (``server_slot::get_timings`` in its tools/server). It counts the first token's decoding
        with the prompt, so ``predicted_ms`` covers one token fewer than ``predicted_n``. The draft counts are absent
        when nothing was drafted; how many steps drafted, and what each drafter did, is told by our build only."""
        observation = Observation(
            prompt_tokens=count(timings, "prompt_n"),
            cached_tokens=count(timings, "cache_n"),
            completion_tokens=count(timings, "predicted_n"),
            drafted=count(timings, "draft_n"),
            accepted=count(timings, "draft_n_accepted"),
            drafting_steps=count(timings, "draft_n_steps"),
            by_drafter=draft_counts(timings, self._kind_of),
        )
        return self._with_times(observation, milliseconds(timings, "prompt_ms"), milliseconds(timings, "predicted_ms"))


def asks_for_several(request: Request) -> bool:
    """Whether it asks for several answers at once: their usage is summed, and no time is that of one of them."""
    fields = request.fields
    for key in ("n", "best_of", "n_cmpl"):
        value = fields.get(key)
        if isinstance(value, (int, float)) and value > 1:
            return True
    prompt = fields.get("prompt")
    if not isinstance(prompt, list) or len(prompt) < 2:
        return False
    return all(
        isinstance(part, str | list | dict) for part in prompt
    )  # tokens, or text and tokens mixed, are one prompt


@lru_cache(maxsize=64)
def _marks(key: str) -> tuple[bytes, bytes]:
    """How a text under a key begins, in both usual spacings."""
    name = msgspec.json.encode(key)
    return name + b':"', name + b': "'


def _may_be_error(data: bytes) -> bool:
    return b"error" in data or b"failed" in data or b"abort" in data


def _is_answer(body: bytes) -> bool:
    """Whether it is a whole JSON object, or a list of them, that holds anything."""
    if body[:1].isspace() or body[-1:].isspace():
        body = body.strip()
    if body[:1] not in (b"{", b"[") or len(body) <= len(b"{}"):
        return False
    try:
        msgspec.json.decode(body, type=msgspec.Raw)  # checks it without making anything of it
    except (msgspec.MsgspecError, RecursionError):
        try:
            json.loads(body)  # which takes NaN and Infinity, as some engines write them
        except ValueError:
            return False
        except RecursionError:
            pass
    return True


def _decoded(data: bytes) -> Any:
    """What JSON stands there; the text, bounded, where it is none."""
    if data == b"[DONE]":
        return ""
    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return data[: dialects.MAX_ERROR_CHARS].decode("utf-8", "replace")


def _last_report(data: bytes, name: bytes, longest: int = MAX_REPORT_BYTES) -> dict[str, Any]:
    """The last JSON object under the key ``name``; empty where there is none.

    The answer's own text can't pass for it: inside a JSON string the quotes of a key are escaped.
    """
    end = len(data)
    for _ in range(MAX_REPORTS_TRIED):
        at = data.rfind(name, 0, end)
        if at < 0:
            break
        end = at
        text = data[at + len(name) : at + len(name) + longest].decode("utf-8", "replace").lstrip()
        if not text.startswith(":"):
            continue
        try:
            report, _ = _decoder.raw_decode(text[1:].lstrip())
        except (ValueError, RecursionError):
            continue
        if isinstance(report, dict):
            return report
    return {}


def count(report: Mapping[str, Any], key: str) -> int | None:
    """A whole number from 0 on that can be a count of tokens; ``None`` for all else."""
    value = report.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT else None


def counts(report: Mapping[str, Any], key: str) -> tuple[int, ...]:
    """A list of counts, without the zeros at its end; empty for all else."""
    values = report.get(key)
    if not isinstance(values, list) or len(values) > MAX_POSITIONS:
        return ()
    numbers = [count({key: value}, key) for value in values]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(number for number in numbers if number is not None) if None not in numbers else ()


def draft_counts(timings: Mapping[str, Any], kind_of: Callable[[str], str]) -> dict[str, DraftCounts]:
    """What each drafter did, by kind; without those whose numbers can't be true."""
    drafters = timings.get("drafters")
    if not isinstance(drafters, dict) or len(drafters) > MAX_DRAFTERS:
        return {}
    found = {kind_of(name): _counts_of(told) for name, told in drafters.items()}
    return {kind: each for kind, each in found.items() if each is not None}


def _counts_of(told: Any, with_shadow: bool = True) -> DraftCounts | None:
    if not isinstance(told, dict):
        return None
    steps, drafted, accepted = (count(told, key) for key in ("steps", "drafted", "accepted"))
    if steps is None or drafted is None or accepted is None or not max(steps, accepted) <= drafted:
        return None
    accepted_at, verified_at = counts(told, "accepted_by_position"), counts(told, "verified_by_position")
    return DraftCounts(
        steps,
        drafted,
        accepted,
        accepted_at + (0,) * (len(verified_at) - len(accepted_at)),
        verified_at,
        _counts_of(told.get("shadow"), with_shadow=False) if with_shadow else None,
    )


def milliseconds(report: Mapping[str, Any], key: str) -> float | None:
    """In seconds."""
    value = seconds(report, key)
    return None if value is None else value / 1000


def seconds(report: Mapping[str, Any], key: str) -> float | None:
    """A finite number from 0 on; ``None`` for all else."""
    value = report.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= MAX_COUNT:
        return None
    return value
