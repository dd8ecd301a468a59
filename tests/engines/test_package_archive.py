"""Fetching a package's file by pip's settings, with an index of our own."""

import base64
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from paceline.engines import llama_cpp_build, package_archive
from paceline.engines.package_archive import NotFetched, fetch

pytestmark = pytest.mark.slow  # they start processes, and wait for them

FILE = "some_thing-1.0.tar.gz"
CONTENT = b"an archive " * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Index:
    """Serves pages by path; notes what it was asked."""

    def __init__(self) -> None:
        self.pages: dict[str, tuple[str, bytes]] = {}
        self.asked: list[tuple[str, str | None]] = []
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                index.asked.append((self.path, self.headers["authorization"]))
                kind, body = index.pages.get(self.path, ("", b""))
                self.send_response(200 if kind else 404)
                self.send_header("content-type", kind)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.place = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    one = Index()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX", "PIP_PROXY", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", f"http://user:p%40ss@{one.place}/simple")
    yield one
    one.server.shutdown()
    one.server.server_close()


def as_json(url: str) -> tuple[str, bytes]:
    files = [{"url": "other-1.0.tar.gz"}, {"url": url, "filename": FILE}]
    return "application/vnd.pypi.simple.v1+json", json.dumps({"files": files}).encode()


def as_html(url: str) -> tuple[str, bytes]:
    return "text/html", f'<a href="x.whl">x</a><a href="{url}#sha256={SHA256}">{FILE}</a>'.encode()


@pytest.mark.parametrize("page", [as_json, as_html])
@pytest.mark.parametrize("name", [FILE, "some-thing-1.0.tar.gz"])
def test_from_an_index(page: Callable[[str], tuple[str, bytes]], name: str, index: Index, tmp_path: Path) -> None:
    index.pages["/simple/some-thing/"] = page(f"../../files/{name}")
    index.pages[f"/files/{name}"] = ("application/gzip", CONTENT)
    assert fetch("Some_Thing", FILE, SHA256, tmp_path).read_bytes() == CONTENT
    login = "Basic " + base64.b64encode(b"user:p@ss").decode()
    assert index.asked == [("/simple/some-thing/", login), (f"/files/{name}", login)]


def test_from_a_folder(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    links = tmp_path / "links"
    links.mkdir()
    (links / FILE).write_bytes(CONTENT)
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    assert fetch("some-thing", FILE, SHA256, tmp_path).read_bytes() == CONTENT
    assert index.asked == []


def test_another_file_of_that_name_is_passed_over(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    links = tmp_path / "links"
    links.mkdir()
    (links / FILE).write_bytes(b"planted")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    with pytest.raises(NotFetched, match=f"but {SHA256} was expected"):
        fetch("some-thing", FILE, SHA256, tmp_path)
    assert not (tmp_path / FILE).exists()
    index.pages["/simple/some-thing/"] = as_html(f"/files/{FILE}")
    index.pages[f"/files/{FILE}"] = ("application/gzip", CONTENT)
    assert fetch("some-thing", FILE, SHA256, tmp_path).read_bytes() == CONTENT


def test_it_says_where_it_looked_and_no_password(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFetched) as error:
        fetch("some-thing", FILE, SHA256, tmp_path)
    assert index.place in str(error.value)
    assert "PIP_FIND_LINKS" in str(error.value)
    assert "ss@" not in str(error.value)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(NotFetched, match="look nowhere"):
        fetch("some-thing", FILE, SHA256, tmp_path)


def test_what_is_too_large_is_not_kept(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package_archive, "MAX_ARCHIVE_BYTES", 100)
    index.pages["/simple/some-thing/"] = as_json(f"/files/{FILE}")
    index.pages[f"/files/{FILE}"] = ("application/gzip", CONTENT)
    with pytest.raises(NotFetched, match="larger than"):
        fetch("some-thing", FILE, SHA256, tmp_path)
    assert list(tmp_path.glob("*.gz*")) == []


def test_pips_own_index_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    assert package_archive.Sources().indexes[0].startswith("https://")


def test_the_builds_source_is_fetched_without_running_it(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its build backend would write a file."""
    mark = tmp_path / "ran"
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, text in {
            "pyproject.toml": '[build-system]\nrequires = ["planted"]\nbuild-backend = "own"\nbackend-path = ["."]\n',
            "own.py": f"open({str(mark)!r}, 'w')\n",
        }.items():
            entry = tarfile.TarInfo(f"llama_cpp_python/{name}")
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    file = f"llama_cpp_python-{llama_cpp_build.VERSION}.tar.gz"
    monkeypatch.setattr(llama_cpp_build, "SHA256", hashlib.sha256(archive.getvalue()).hexdigest())
    index.pages["/simple/llama-cpp-python/"] = as_json(f"/files/{file}")
    index.pages[f"/files/{file}"] = ("application/gzip", archive.getvalue())
    fetched = llama_cpp_build._downloaded(tmp_path, tmp_path / "log")
    assert fetched.read_bytes() == archive.getvalue()
    assert not mark.exists()
    assert [path for path, _ in index.asked] == ["/simple/llama-cpp-python/", f"/files/{file}"]
    index.pages[f"/files/{file}"] = ("application/gzip", b"tampered with")
    with pytest.raises(llama_cpp_build.CannotBuild, match="another file"):
        llama_cpp_build._downloaded(tmp_path, tmp_path / "log")


@pytest.mark.parametrize(("flags", "options"), [("sse2 amx_tile avx2", 2), ("sse2 avx2", 0)])
def test_nothing_is_built_for_amx(flags: str, options: int, tmp_path: Path) -> None:
    """Machines say that they have it, and can't run it."""
    cpu_info = tmp_path / "cpuinfo"
    cpu_info.write_text(f"processor : 0\nflags : {flags}\n")
    told = llama_cpp_build.processor_options(cpu_info)
    assert len(told) == options
    assert all("-mno-amx-tile" in value for value in told.values())
    assert llama_cpp_build.processor_options(tmp_path / "none") == {}
