"""Bytes -> Request, or an error that says what is wrong with them and where."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from paceline.http.errors import ApiError
from paceline.http.outline import outlined
from paceline.types import Api, Request

_READ = frozenset(
    b"x-paceline-lane x-paceline-learn x-paceline-private x-paceline-deadline-ms x-paceline-max-cost x-request-id "
    b"traceparent".split()
)
MAX_DEADLINE_MS = 1e9
"""Eleven days; a larger number is a mistake."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""Windows' editors and PowerShell begin files with it; JSON must not, but engines take it."""
MAX_WHOLE_BYTES = 300_000
"""A larger body is not decoded whole: a million bytes of the most costly form (``[[],[], ...``) take up to 100 ms on a
busy machine, in which nothing else happens."""


async def parse_request(
    api: Api,
    target: str,
    body: bytes,
    headers: list[tuple[bytes, bytes]],
    client: str | None = None,
    address: str = "",
) -> Request:
    """Read a generation request. Only what the gateway itself needs is checked; the rest is the engine's to judge.

    Args:
        target: path and query.
        headers: names in lower case.
        client: the name of the client's key.
        address: the client's.

    Raises:
        ApiError: 400, the body is no JSON object, or a field has the wrong type.
    """
    fields, elided_chars = await _decode(body)
    if not isinstance(fields, dict):
        raise ApiError(400, f"the request body is {_json_type(fields)}, not a JSON object", "invalid_body")
    model, stream = fields.get("model"), fields.get("stream")
    named = {name: value.decode("latin-1") for name, value in headers if name in _READ}
    deadline_ms = _number(named, b"x-paceline-deadline-ms")
    if deadline_ms is not None and not 0 < deadline_ms <= MAX_DEADLINE_MS:
        raise ApiError(400, f"x-paceline-deadline-ms: is {deadline_ms:g}, not above 0", "invalid_header")
    return Request(
        api=api,
        path=target,
        body=body,
        fields=fields,
        model=model if isinstance(model, str) and model else None,
        stream=stream is True,  # any other value is the engine's to judge
        forced_lane=named.get(b"x-paceline-lane"),
        id=named.get(b"x-request-id"),
        teaches=_is_yes(named, b"x-paceline-learn", usual=True),
        trace=named.get(b"traceparent"),
        headers=tuple(headers),
        client=client,
        address=address,
        private="header x-paceline-private" if _is_yes(named, b"x-paceline-private", usual=False) else "",
        deadline_s=None if deadline_ms is None else deadline_ms / 1000,
        max_cost=_number(named, b"x-paceline-max-cost"),
        elided_chars=elided_chars,
    )


def _is_yes(named: Mapping[bytes, str], header: bytes, usual: bool) -> bool:
    """
    Raises:
        ApiError: the header is neither yes nor no.
    """
    value = named.get(header, "yes" if usual else "no").strip().lower()
    if value not in ("yes", "no"):
        raise ApiError(400, f"{header.decode()}: is {value[:20]!r}, not yes or no", "invalid_header")
    return value == "yes"


def _number(named: Mapping[bytes, str], header: bytes) -> float | None:
    """
    Raises:
        ApiError: the header is there, and holds no number from 0 on.
    """
    value = named.get(header)
    if value is None:
        return None
    if not re.fullmatch(r"\s*[0-9]{1,15}(?:\.[0-9]{1,15})?\s*", value):
        raise ApiError(400, f"{header.decode()}: is {value[:20]!r}, not a number from 0 on", "invalid_header")
    return float(value)


async def _decode(body: bytes) -> tuple[Any, int]:
    """The document, and the characters that are left out of it."""
    document = body.removeprefix(_BYTE_ORDER_MARK)
    if document.endswith(b"\0"):
        document = document.rstrip(b"\0")  # C programs send it along; engines pass it over
    try:
        if len(document) <= MAX_WHOLE_BYTES:
            return msgspec.json.decode(document), 0
        return await outlined(document)
    except msgspec.DecodeError as error:
        what = re.sub(r"^JSON is malformed: | \(byte \d+\)$", "", str(error))
        at = re.search(r"byte (\d+)", str(error))
        offset = int(at[1]) if at else len(document)
        line = document.count(b"\n", 0, offset) + 1
        column = offset - document.rfind(b"\n", 0, offset)
        raise ApiError(
            400,
            f"the request body is not valid JSON: {what} (line {line}, column {column}, byte {offset})",
            "invalid_json",
        ) from error
    except UnicodeDecodeError as error:
        raise ApiError(
            400, f"the request body is not valid UTF-8: {error.reason} at byte {error.start}", "invalid_json"
        ) from error
    except RecursionError as error:
        raise ApiError(400, "the request body is nested too deeply", "invalid_json") from error


def _json_type(value: Any) -> str:
    if isinstance(value, bool):
        return "a boolean"
    names = {dict: "an object", list: "an array", str: "a string", int: "a number", float: "a number"}
    return names.get(type(value), "null")
