"""Writes fields into a request's body."""

from collections.abc import Mapping
from typing import Any

import msgspec

from paceline.types import Request


def with_fields(request: Request, fields: Mapping[str, Any]) -> bytes:
    """The request's body with more fields, in place of those of the same name. The rest keeps its bytes, unless a field
    has to be replaced."""
    if not request.fields.keys().isdisjoint(fields):
        return msgspec.json.encode({**request.fields, **fields})
    start = request.body.index(b"{") + 1
    rest = request.body[start:].lstrip()
    comma = b"" if rest.startswith(b"}") else b","
    return request.body[:start] + msgspec.json.encode(fields)[1:-1] + comma + rest
