"""Writes fields into a request's body."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from paceline.types import Request

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


def with_fields(request: Request, fields: Mapping[str, Any]) -> bytes:
    """The request's body with more fields, in place of those of the same name. All else keeps its bytes, but for the
    space between members where a field has to be replaced."""
    body = request.body.removeprefix(_BYTE_ORDER_MARK).rstrip(b"\0 \t\r\n")
    if not request.fields.keys().isdisjoint(fields):
        members = _members.decode(body) | {
            name: msgspec.Raw(msgspec.json.encode(value)) for name, value in fields.items()
        }
        return msgspec.json.encode(members)
    start = body.index(b"{") + 1
    rest = body[start:].lstrip()
    comma = b"" if rest.startswith(b"}") else b","
    return body[:start] + msgspec.json.encode(fields)[1:-1] + comma + rest


def with_model(request: Request, name: str) -> Request:
    """The request as it is for an engine that knows its model by another name."""
    return replace(request, body=with_fields(request, {"model": name}), fields={**request.fields, "model": name})
