"""The model that a request names which is not decided on: in JSON, or in a form with a file."""

import re
from collections.abc import Iterator

from msgspec import Struct

from paceline.json_members import Unclear, members
from paceline.wire.headers import Headers

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BOUNDARY = re.compile(rb';\s*boundary\s*=\s*(?:"([^"\r\n]{1,200})"|([^\s;"]{1,200}))', re.IGNORECASE)
_HEAD_OF_PART = re.compile(rb"[ \t]*\r?\n((?>[^\r\n]{1,500}\r?\n){0,16})\r?\n")
"""A part's headers. Bounded: the body is the client's."""
_NAMES_MODEL = re.compile(rb'^content-disposition:[^\r\n]*;\s*name\s*=\s*(?:"model"|model(?![^\s;]))', re.I | re.M)
MAX_PARTS = 64
"""Of a form; one with more is not looked through."""
MAX_NAME_BYTES = 200


class Named(Struct, frozen=True):
    """What a body tells of its model."""

    models: tuple[str, ...] = ()
    """All that it names; an engine may read one of them or another."""
    span: tuple[int, int] | None = None
    """Where the last one's name stands in the body."""
    is_text: bool = False
    """Whether it stands there in JSON, with quotes."""
    is_sure: bool = True
    """Whether it is known that there is no other."""

    @property
    def model(self) -> str | None:
        """The last one: what JSON's readers go by."""
        return self.models[-1] if self.models else None


async def named_model(headers: Headers, body: bytes) -> Named:
    """The model that a body names, of whatever size; it lets others run meanwhile."""
    if not body:
        return Named()
    kind = dict(headers).get(b"content-type", b"")
    if kind.lower().startswith(b"multipart/"):
        return model_in_form(kind, body)
    begins = len(_BYTE_ORDER_MARK) if body.startswith(_BYTE_ORDER_MARK) else 0
    try:
        found = await members(body[begins:].rstrip(b"\0"), ("model",))  # as an engine may read it
    except Unclear:
        return Named(is_sure=False)
    texts = [(value, place) for value, place in found["model"] if isinstance(value, str)]
    if not texts:
        return Named(is_sure=all(value is None for value, _ in found["model"]))
    begin, end = texts[-1][1]
    return Named(tuple(value for value, _ in texts), (begins + begin, begins + end), is_text=True)


def model_in_form(kind: bytes, body: bytes) -> Named:
    """The values of a form's fields ``model``. A form without one may hold requests in a file, so that nothing is sure.

    Args:
        kind: the media type with its boundary.
    """
    boundary = _BOUNDARY.search(kind)
    if boundary is None:
        return Named(is_sure=False)
    fields = []
    for number, (begin, end) in enumerate(_parts(body, b"--" + (boundary[1] or boundary[2]))):
        if number >= MAX_PARTS:
            return Named(is_sure=False)
        head = _HEAD_OF_PART.match(body, begin, end)
        if head is None:
            return Named(is_sure=False)
        if _NAMES_MODEL.search(head[1]):
            value = body[head.end() : end].removesuffix(b"\n").removesuffix(b"\r")
            if not 0 < len(value) <= MAX_NAME_BYTES:
                return Named(is_sure=False)
            fields.append((value.decode("utf-8", "replace"), (head.end(), head.end() + len(value))))
    if not fields:
        return Named(is_sure=False)
    return Named(tuple(value for value, _ in fields), fields[-1][1])


def _parts(body: bytes, delimiter: bytes) -> Iterator[tuple[int, int]]:
    """Where the parts of a form stand, behind their delimiters."""
    begin = body.find(delimiter)
    while begin >= 0 and body[begin + len(delimiter) : begin + len(delimiter) + 2] != b"--":
        begin += len(delimiter)
        end = body.find(b"\n" + delimiter, begin)
        yield begin, end + 1 if end >= 0 else len(body)
        begin = end + 1 if end >= 0 else -1
