"""The model that a request names which is not decided on: in JSON, or in a form with a file."""

import re

import msgspec
from msgspec import Struct

from paceline.wire.headers import Headers

MAX_DECODED_BYTES = 2_000_000
"""A larger body is only searched for its model's name: passing over 60 MB of JSON stops all else for 0.1 s and more."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_MODEL = re.compile(rb'"model"\s*:\s*"([^"\\\x00-\x1f\x80-\xff]{1,200})"')
MAX_FIELDS_TRIED = 64
"""Places in a form where the field ``model`` may begin; a file within may look like many."""
_FIELD_NAMES = (b'name="model"', b"name=model")
_REST_OF_FIELD = re.compile(rb"[ \t]*(?:;[^\r\n]{0,200})?\r?\n(?>[^\r\n]{1,200}\r?\n){0,8}\r?\n([^\r\n]{1,200})\r?\n")
"""Of the line that names it, further headers, and the value. Bounded: the body is the client's."""


class _NamesModel(Struct):
    model: str | None = None


def named_model(headers: Headers, body: bytes) -> tuple[str | None, tuple[int, int] | None]:
    """The model that the body names, and where it stands if that is a form."""
    kind = dict(headers).get(b"content-type", b"").lower()
    if kind.startswith(b"multipart/form-data"):
        return model_in_form(body) or (None, None)
    if len(body) > MAX_DECODED_BYTES:
        named = _MODEL.search(body, 0, MAX_DECODED_BYTES) or _MODEL.search(body[-MAX_DECODED_BYTES:])
        return (named[1].decode() if named else None), None
    try:
        body = body.removeprefix(_BYTE_ORDER_MARK).rstrip(b"\0")  # as an engine may read it
        return msgspec.json.decode(body, type=_NamesModel).model, None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None, None


def model_in_form(body: bytes) -> tuple[str, tuple[int, int]] | None:
    """The value of a form's field ``model``, and where it stands in the body."""
    for name in _FIELD_NAMES:
        at = 0
        for _ in range(MAX_FIELDS_TRIED):
            if (at := body.find(name, at) + len(name)) < len(name):
                break
            is_whole_name = body[at - len(name) - 1 : at - len(name)] in (b" ", b";", b"\t")
            if is_whole_name and (field := _REST_OF_FIELD.match(body, at)):
                return field[1].decode("utf-8", "replace"), field.span(1)
    return None
