"""Fetches one file of a Python package from where pip is set up to look, checked against its hash. Nothing of it is
run: pip itself would run the package's build backend, and what that asks for, just to download it.

Indexes are read as the simple repository API has them, as JSON or HTML:
https://packaging.python.org/en/latest/specifications/simple-repository-api/
"""

import ast
import base64
import hashlib
import os
import re
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import IO
from urllib.error import URLError
from urllib.parse import unquote, urldefrag, urljoin, urlsplit, urlunsplit
from urllib.request import HTTPSHandler, ProxyHandler, Request, build_opener, url2pathname

import msgspec

from paceline.wire.client import without_credentials

MAX_PAGE_BYTES = 64 * 1024 * 1024
"""Of an index's page; that of a package with thousands of files has a few million."""
MAX_ARCHIVE_BYTES = 1024 * 1024 * 1024
"""Of the file, which has some tens of megabytes."""
TIMEOUT_S = 60.0
"""Without a byte."""
ACCEPT = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"
_DEFAULT_INDEX = re.compile(r"--index-url <url>.*?\(default:? ?(\S+?)\)")


class NotFetched(Exception):
    """The file can't be had; the message says where it was looked for."""


class Sources:
    """Where pip looks, by its configuration files and its environment variables.

    Raises:
        NotFetched: pip does not tell.
    """

    def __init__(self) -> None:
        settings = _pip_settings()
        self.indexes: list[str] = []
        if settings.get("no-index", "").lower() not in ("1", "true", "yes", "on"):
            self.indexes = [settings.get("index-url") or _default_index(), *settings.get("extra-index-url", "").split()]
        self.links = settings.get("find-links", "").split()
        """Folders, pages or files beside the indexes."""
        trusted = set(settings.get("trusted-host", "").split())
        proxy = settings.get("proxy")
        self._trusted = trusted
        self._checked = ssl.create_default_context(cafile=settings.get("cert") or None)
        self._unchecked = ssl._create_unverified_context()  # as pip for hosts that it is told to trust
        self._proxies = ProxyHandler({"http": proxy, "https": proxy} if proxy else None)

    def open(self, url: str) -> IO[bytes]:
        """A URL's content.

        Raises:
            OSError: it can't be read; ValueError: it is no URL.
        """
        parts = urlsplit(url)
        if parts.scheme == "file":
            path = Path(url2pathname(parts.path))
            return (path / "index.html" if path.is_dir() else path).open("rb")
        if parts.scheme not in ("http", "https"):
            raise ValueError(f"neither http(s) nor a file: {without_credentials(url)}")
        user, at, host = parts.netloc.rpartition("@")
        headers = {"Accept": ACCEPT, "Accept-Encoding": "identity"}
        if at:
            headers["Authorization"] = "Basic " + base64.b64encode(unquote(user).encode()).decode()
        trusted = parts.hostname in self._trusted or host in self._trusted
        opener = build_opener(self._proxies, HTTPSHandler(context=self._unchecked if trusted else self._checked))
        answer: IO[bytes] = opener.open(
            Request(urlunsplit(parts._replace(netloc=host)), headers=headers), None, TIMEOUT_S
        )
        return answer


def fetch(package: str, file: str, sha256: str, target: Path) -> Path:
    """Fetch a file of a package into a folder.

    Args:
        file: its name, such as ``package-1.0.tar.gz``; dashes and underscores are taken for each other.
        sha256: of its content, in hexadecimal.

    Raises:
        NotFetched: it is nowhere, or what is there is something else.
    """
    sources = Sources()
    problems: list[str] = []
    for url in _urls(sources, package, file, problems):
        try:
            return _downloaded(sources, url, sha256, target / file)
        except (OSError, ValueError, NotFetched) as error:
            problems.append(f"{without_credentials(url)}: {error}")
    looked = [*sources.indexes, *sources.links]
    if not problems:
        problems = [
            f"it is not in {', '.join(map(without_credentials, looked)) or 'any place: pip is set up to look nowhere'}"
        ]
    raise NotFetched(
        f"{file} could not be fetched: {'; '.join(problems)}. Where the network does not reach, put the file into a "
        "folder and name that in PIP_FIND_LINKS"
    )


def _urls(sources: Sources, package: str, file: str, problems: list[str]) -> Iterator[str]:
    """The URLs of files of that name."""
    for place in sources.links:
        folder = Path(url2pathname(urlsplit(place).path) if place.startswith("file:") else place).expanduser()
        if folder.is_dir():
            yield from (path.absolute().as_uri() for path in folder.iterdir() if _normal(path.name) == _normal(file))
        elif folder.is_file() and _normal(folder.name) == _normal(file):
            yield folder.absolute().as_uri()
        elif "://" in place:
            yield from _links(sources, place, file, problems)
    for index in sources.indexes:
        base = index if "://" in index else Path(index).absolute().as_uri()
        yield from _links(sources, f"{base.rstrip('/')}/{_normal(package)}/", file, problems)


def _links(sources: Sources, page: str, file: str, problems: list[str]) -> list[str]:
    """The URLs of files of that name on an index's page."""
    try:
        with sources.open(page) as answer:
            content = answer.read(MAX_PAGE_BYTES)
            base = getattr(answer, "url", page)
    except (OSError, ValueError) as error:
        if getattr(error, "code", None) != 404 and not isinstance(error, FileNotFoundError):
            problems.append(f"{without_credentials(page)}: {error.reason if isinstance(error, URLError) else error}")
        return []
    if not base.startswith("http"):
        base = page
    user, at, _ = urlsplit(page).netloc.rpartition("@")
    urls = []
    for link in _hrefs(content):
        url = urldefrag(urljoin(base, link)).url
        if _normal(unquote(urlsplit(url).path.rpartition("/")[2])) == _normal(file):
            parts = urlsplit(url)
            if at and parts.hostname == urlsplit(page).hostname and "@" not in parts.netloc:
                url = urlunsplit(parts._replace(netloc=f"{user}@{parts.netloc}"))
            urls.append(url)
    return urls


def _hrefs(content: bytes) -> list[str]:
    if content.lstrip()[:1] == b"{":
        try:
            files = msgspec.json.decode(content)["files"]
            return [entry["url"] for entry in files if isinstance(entry.get("url"), str)]
        except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
            return []
    parser = _Hrefs()
    parser.feed(content.decode("utf-8", "replace"))
    return parser.links


class _Hrefs(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.links += [value for name, value in attrs if name == "href" and value]


def _downloaded(sources: Sources, url: str, sha256: str, target: Path) -> Path:
    unfinished = target.with_name(target.name + ".part")
    digest, size = hashlib.sha256(), 0
    try:
        with sources.open(url) as answer, unfinished.open("wb") as file:
            while piece := answer.read(1024 * 1024):
                size += len(piece)
                if size > MAX_ARCHIVE_BYTES:
                    raise NotFetched(f"it is larger than {MAX_ARCHIVE_BYTES:,} bytes")
                digest.update(piece)
                file.write(piece)
        if digest.hexdigest() != sha256:
            raise NotFetched(f"its hash is {digest.hexdigest()}, but {sha256} was expected: it is another file")
        return unfinished.rename(target)
    finally:
        unfinished.unlink(missing_ok=True)


def _pip_settings() -> Mapping[str, str]:
    """What pip is told for downloads: by files, in which a command's own section counts more, and by variables."""
    listed = _pip("config", "list")
    by_section: dict[str, dict[str, str]] = {"global": {}, "download": {}, ":env:": {}}
    for line in listed.splitlines():
        key, equals, value = line.partition("=")
        section, _, name = key.rpartition(".")
        if equals and section in by_section:
            try:
                by_section[section][name] = str(ast.literal_eval(value))
            except (ValueError, SyntaxError):
                continue
    return by_section["global"] | by_section["download"] | by_section[":env:"]


def _default_index() -> str:
    """The index that pip looks at where it is told none, by its help text."""
    default = _DEFAULT_INDEX.search(" ".join(_pip("download", "--help").split()))
    if default is None:
        raise NotFetched("pip does not tell its index; name it in PIP_INDEX_URL")
    return default[1]


def _pip(*words: str) -> str:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *words]
    environment = os.environ | {"COLUMNS": "1000", "PYTHONIOENCODING": "utf-8"}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, encoding="utf-8", errors="replace", timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotFetched(f"pip can't be run: {error}") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise NotFetched(f"pip, which knows where to look for packages, can't be asked: {last}")
    return done.stdout


def _normal(name: str) -> str:
    """A name with its separators and case levelled out, as PEP 503 has it."""
    return re.sub(r"[-_]+", "-", name).lower()
