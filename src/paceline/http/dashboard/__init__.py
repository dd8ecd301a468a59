"""The dashboard: one page with its styles and scripts. They hold no data; the scripts ask for that."""

from importlib.resources import files

from msgspec import Struct

HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"cache-control", b"no-cache"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
_TYPES = {"html": b"text/html; charset=utf-8", "css": b"text/css", "js": b"text/javascript"}
PAGE, PARTS = "/paceline/", "/paceline/page/"
"""Where the page is, and the files that it needs."""


class Document(Struct, frozen=True):
    """A file as it is served."""

    kind: bytes
    """Its media type."""
    body: bytes


def _documents() -> dict[str, Document]:
    """By path."""
    found = {}
    for file in (*files(__name__).iterdir(), *(files(__name__) / "uplot").iterdir()):
        kind = _TYPES.get(file.name.rpartition(".")[2])
        if kind is not None:
            found[PAGE if file.name == "index.html" else PARTS + file.name] = Document(kind, file.read_bytes())
    return found


DOCUMENTS = _documents()
