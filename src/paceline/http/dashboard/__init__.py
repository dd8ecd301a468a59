"""The dashboard: one page with its style and its script. It holds no data; its script asks for that."""

from importlib.resources import files

HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"cache-control", b"no-cache"),
    (b"x-content-type-options", b"nosniff"),
]
_TYPES = {"html": b"text/html; charset=utf-8", "css": b"text/css", "js": b"text/javascript"}
_PATHS = {
    "/paceline/": "index.html",
    "/paceline/dashboard.css": "dashboard.css",
    "/paceline/dashboard.js": "dashboard.js",
}
DOCUMENTS = {
    path: (_TYPES[name.rpartition(".")[2]], (files(__name__) / name).read_bytes()) for path, name in _PATHS.items()
}
"""By path: media type and body."""
