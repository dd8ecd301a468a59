"""Bytes -> Request, or an error that says what is wrong with them and where."""

import re
from typing import Any

import msgspec

from paceline.gateway.errors import ApiError
from paceline.types import Api, Request

_READ = frozenset((b"x-paceline-lane", b"x-paceline-learn", b"x-request-id", b"traceparent"))


def parse_request(api: Api, target: str, body: bytes, headers: list[tuple[bytes, bytes]]) -> Request:
    """Read a generation request. Only what the gateway itself needs is checked; the rest is the engine's to judge.

    Args:
        target: path and query.
        headers: names in lower case.

    Raises:
        ApiError: 400, the body is no JSON object, or a field has the wrong type.
    """
    fields = _decode(body)
    if not isinstance(fields, dict):
        raise ApiError(400, f"the request body is {_json_type(fields)}, not a JSON object", "invalid_body")
    model, stream = fields.get("model"), fields.get("stream")
    if model is not None and not isinstance(model, str):
        raise ApiError(400, f"model: is {_json_type(model)}, not a string", "invalid_type")
    if stream is not None and not isinstance(stream, bool):
        raise ApiError(400, f"stream: is {_json_type(stream)}, not true or false", "invalid_type")
    told = {name: value.decode("latin-1") for name, value in headers if name in _READ}
    learn = told.get(b"x-paceline-learn", "yes").lower()
    if learn not in ("yes", "no"):
        raise ApiError(400, f"x-paceline-learn: is {learn!r}, not yes or no", "invalid_header")
    return Request(
        api,
        target,
        body,
        fields,
        model or None,
        bool(stream),
        told.get(b"x-paceline-lane"),
        told.get(b"x-request-id"),
        learn == "yes",
        told.get(b"traceparent"),
        headers=tuple(headers),
    )


def _decode(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        what = re.sub(r"^JSON is malformed: | \(byte \d+\)$", "", str(error))
        at = re.search(r"byte (\d+)", str(error))
        offset = int(at[1]) if at else len(body)
        line = body.count(b"\n", 0, offset) + 1
        column = offset - body.rfind(b"\n", 0, offset)
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
