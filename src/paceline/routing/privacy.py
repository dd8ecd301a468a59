"""Which requests may not leave this machine, and why. Where it can't be told, they may not."""

import codecs
import posixpath
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from urllib.parse import parse_qs, unquote, unquote_plus

import msgspec

from paceline.globs import any_matches, compiled
from paceline.patterns import TooLong, compiled_pattern, first_found
from paceline.settings import CREDENTIALS, Configuration, PrivacySettings
from paceline.types import Request

MAX_SEARCHED_BYTES = 4_000_000
"""Of a body; a longer one is private where patterns are looked for."""
MAX_QUERY_FIELDS = 1000
"""Of an address; what has more can't be told."""
HEADER = b"x-paceline-private"
SECRETS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("PRIVATE KEY",), r"-----BEGIN [A-Z ]{0,24}PRIVATE KEY"),
    (("AKIA", "ASIA"), r"A(?:K|S)IA[A-Z0-9]{16}\b"),
    (("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), r"gh[pousr]_[A-Za-z0-9]{36}"),
    (("github_pat_",), r"github_pat_[A-Za-z0-9_]{22}"),
    (("glpat-",), r"glpat-[A-Za-z0-9_-]{20}"),
    (("xox",), r"xox[abeoprs]-[A-Za-z0-9-]{10}"),
    (("sk-",), r"\bsk-[A-Za-z0-9_-]{20}"),
    (("k_live_",), r"[rs]k_live_[A-Za-z0-9]{16}"),
    (("AIza",), r"AIza[A-Za-z0-9_-]{35}"),
    (("ya29.",), r"ya29\.[A-Za-z0-9_-]{20}"),
    (("npm_",), r"npm_[A-Za-z0-9]{36}"),
    (("pypi-",), r"pypi-[A-Za-z0-9_-]{40}"),
    (("hf_",), r"\bhf_[A-Za-z0-9]{30}"),
    (("SG.",), r"\bSG\.[A-Za-z0-9_-]{16,32}+\.[A-Za-z0-9_-]{16}"),
    (("hooks.slack.com/",), r"hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9/_-]{16}"),
    (("discord",), r"discord(?:app)?\.com/api/webhooks/[0-9]{17,20}/[A-Za-z0-9_-]{16}"),
    ((":aa",), r"\b[0-9]{8,10}:AA[A-Za-z0-9_-]{32}"),
    (("sk", "ac"), r"\b(?:SK|AC)[0-9a-f]{32}\b"),
    (("-us",), r"\b[0-9a-f]{32}-us[0-9]{1,2}\b"),
    (("sq0",), r"\bsq0[a-z]{3}-[A-Za-z0-9_-]{22}"),
    (("accountkey",), r"(?i)accountkey\s{0,2}+=\s{0,2}+[A-Za-z0-9+/]{40}"),
    ((".eyJ",), r"\beyJ[A-Za-z0-9_-]{10,512}+\.eyJ[A-Za-z0-9_-]{10}"),
    (("://",), r"://[^\s:/@\"]{1,64}+:[^\s:/@\"]{3,128}+@"),
    (
        ("key", "secret", "passw"),
        r"(?i)(?:api_?key|secret(?:_access_key)?|passw(?:or)?d)[\"']?\s{0,2}+[:=]\s{0,2}+[\"']?[A-Za-z0-9+/_-]{16}",
    ),
)
"""Shapes of keys and passwords, each behind what is looked for first, in any case, since that is quick: private keys
(RFC 7468); AWS, GitHub, GitLab, Slack, OpenAI and Anthropic, Stripe, Google, npm, PyPI, Hugging Face, SendGrid,
Discord, Telegram, Twilio, Mailchimp, Square, Azure storage, as their documentation has them; JSON Web Tokens (RFC
7519); addresses with a password; assignments to what is called a key or a password."""
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "b": "\b", '"': '"', "/": "/"}
_PIECES = tuple((f"\\{escape}".encode(), plain.encode()) for escape, plain in _ESCAPES.items())
_UNICODE = re.compile(r"(?:\\+u[0-9a-fA-F]{4})+")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Privacy:
    """The rules of one configuration.

    Raises:
        TooCostly: a pattern is wrong; a configuration that was checked has none that is.
    """

    def __init__(self, configuration: Configuration) -> None:
        settings: PrivacySettings = configuration.privacy
        self._keys = frozenset(client.name for client in configuration.key if client.private)
        self._models = frozenset(model.name for model in configuration.model if model.private)
        names = [name for model in configuration.model if model.private for name in (model.name, *model.aliases)]
        self._names = compiled(names)
        self._names_in_paths = _in_paths(names)
        self._paths = compiled(settings.paths)
        self._headers = [_header(header) for header in settings.headers]
        self._patterns = [compiled_pattern(pattern) for pattern in settings.patterns]
        self._secrets = _compiled_secrets() if settings.secrets else ()

    def why(self, request: Request) -> str:
        """Why a request that is decided on is private; empty where it is not."""
        if request.private:
            return request.private
        if request.served_model in self._models:
            return f"model {request.served_model}"
        if self._is_of_model(request.model):
            return "its model"
        if request.cleared_by is self:
            return ""
        body = request.body or msgspec.json.encode(request.fields)
        return self.why_passed(request.path, request.headers, body, request.client)

    def why_passed(
        self,
        target: str,
        headers: Iterable[tuple[bytes, bytes]],
        body: bytes,
        client: str | None,
        models: Sequence[str] | None = (),
        is_readable: bool = True,
    ) -> str:
        """Why a request of whatever sort is private; empty where it is not.

        Args:
            target: path and query.
            client: the name of its key.
            models: all that it names; ``None`` where that can't be told.
            is_readable: whether its body is there as the client wrote it, and not compressed.
        """
        # 1. What it says of itself, and who sends it.
        headers = list(headers)
        if any(name == HEADER and value.strip().lower() != b"no" for name, value in headers):
            return "header x-paceline-private"
        if client in self._keys:
            return f"key {client}"
        if self._names and models is None:
            return "which model it names can't be told"
        if any(map(self._is_of_model, (*(models or ()), *_models_in_query(target)))) or self._is_model_in_path(target):
            return "its model"
        if self._paths and any(any_matches(self._paths, path) for path in _spellings(target.partition("?")[0])):
            return "path"
        for name, value in self._headers:
            if any(given == name and (value is None or value in _values(content)) for given, content in headers):
                return f"header {name.decode()}"
        # 2. What is in it.
        if self._names and not is_readable:
            return "which model it names can't be told"
        if not (self._patterns or self._secrets):
            return ""
        if len(body) > MAX_SEARCHED_BYTES or not is_readable:
            return "its body can't be searched"
        around = "\n".join((target, *_shown(headers)))
        text = f"{around}\n{text_of(body)}"
        if (plain := unquote_plus(around)) != around:
            text = f"{plain}\n{text}"
        if why := self._why_text(text):
            return why
        return self._why_text(nested) if (nested := _without_escapes(text)) != text else ""

    def _why_text(self, text: str) -> str:
        try:
            if (found := first_found(self._patterns, text)) is not None:
                return f"pattern {self._patterns.index(found) + 1}"
            return "it holds what looks like a secret" if self._secrets and _holds_secret(text, self._secrets) else ""
        except TooLong:
            return "its body could not be searched in time"

    def _is_of_model(self, name: str | None) -> bool:
        return name is not None and any_matches(self._names, name)

    def _is_model_in_path(self, target: str) -> bool:
        path = target.partition("?")[0]
        return any(pattern.search(text) for text in {path, unquote(path)} for pattern in self._names_in_paths)


@lru_cache(maxsize=1)
def _compiled_secrets() -> tuple[tuple[tuple[str, ...], re.Pattern[str]], ...]:
    return tuple((tuple(sign.lower() for sign in signs), compiled_pattern(text)) for signs, text in SECRETS)


def _holds_secret(text: str, secrets: Sequence[tuple[tuple[str, ...], re.Pattern[str]]]) -> bool:
    """
    Raises:
        TooLong: it could not be told in time.
    """
    lower = text.lower()
    likely = [pattern for signs, pattern in secrets if any(sign in lower for sign in signs)]
    return first_found(likely, text) is not None


def text_of(body: bytes) -> str:
    """The text of a body; of one in JSON, with the escapes of its strings replaced, whatever else of it is doubled or
    hidden in there."""
    body = body.removeprefix(_BYTE_ORDER_MARK)
    if b"\0" in body:  # text in UTF-16
        body = body.replace(b"\0", b"")
    if body.lstrip()[:1] in (b"{", b"[", b'"') and b"\\" in body:
        backslashes = body.split(b"\\\\")
        for escaped, plain in _PIECES:
            backslashes = [piece.replace(escaped, plain) for piece in backslashes]
        body = b"\\".join(backslashes)
    text = body.decode("utf-8", "replace")
    return _UNICODE.sub(_characters, text) if "\\u" in text else text


def _without_escapes(text: str) -> str:
    """A text with all that may be an escape replaced, however often it is escaped: JSON stands in JSON's strings where
    tools are called."""
    if "\\" not in text:
        return text
    while "\\\\" in text:
        text = text.replace("\\\\", "\\")
    for escape, plain in _ESCAPES.items():
        text = text.replace(f"\\{escape}", plain)
    return text


def _spellings(path: str) -> Iterable[str]:
    """A path as it is written, and as an engine may read it."""
    plain = posixpath.normpath("/" + unquote(path).lstrip("/"))
    return (path,) if plain == path else (path, plain)


def _models_in_query(target: str) -> Iterable[str]:
    return parse_qs(target.partition("?")[2], max_num_fields=MAX_QUERY_FIELDS).get("model", ())


def _characters(match: re.Match[str]) -> str:
    """Of escapes that follow one another: two may be one character."""
    units = bytes.fromhex(match[0].replace("\\", "").replace("u", ""))
    return codecs.decode(units, "utf-16-be", "replace")


def _in_paths(names: Iterable[str]) -> tuple[re.Pattern[str], ...]:
    """What finds models in a path: between slashes and colons, which their names may have as well."""
    return tuple(re.compile(_in_path(name), re.IGNORECASE | re.DOTALL) for name in names)


def _in_path(name: str) -> str:
    begin = "" if name.startswith("*") else "(?:^|[/:=])"
    whole = ".*".join(map(re.escape, name.lstrip("*").split("*")))
    return rf"{begin}{whole}(?=$|[/:?])"


def _values(content: bytes) -> Iterable[bytes]:
    """What a header may mean to say: spaces at its ends are no part of it, and proxies join several into one (RFC 9110,
    sections 5.3 and 5.5)."""
    whole = content.strip().lower()
    return (whole, *(value.strip() for value in whole.split(b",")))


def _shown(headers: Iterable[tuple[bytes, bytes]]) -> Iterable[str]:
    """Headers as an engine elsewhere may get them, a line each: those of one name together (RFC 9110, section 5.3). The
    client's credentials are not among them, since they are secrets by their nature and go to no provider."""
    joined: dict[bytes, bytes] = {}
    for name, value in headers:
        if name.decode("latin-1") not in CREDENTIALS:
            joined[name] = b"%b, %b" % (joined[name], value) if name in joined else value
    for name, value in joined.items():
        try:
            text = value.decode()
        except UnicodeDecodeError:
            text = value.decode("latin-1")
        yield f"{name.decode('latin-1')}: {text}"


def _header(text: str) -> tuple[bytes, bytes | None]:
    name, colon, value = text.partition(": ")
    return name.lower().encode(), value.strip().lower().encode() if colon else None
