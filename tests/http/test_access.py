"""Who may: hosts, origins, keys."""

import contextlib
from contextlib import nullcontext
from urllib.parse import unquote

import pytest
from tests.conftest import lane

from paceline.configuration import ConfigurationError, is_loopback, parse
from paceline.http.access import Access, Caller
from paceline.http.errors import ApiError
from paceline.http.routes import Audience
from paceline.settings import Configuration, KeySettings, ServerSettings

Headers = list[tuple[bytes, bytes]]


def access(server: ServerSettings | None = None, *keys: KeySettings) -> Access:
    return Access(Configuration(server=server or ServerSettings(), key=keys))


def status(check: Access, headers: Headers, opens_a_page: bool = False) -> int:
    """200 for what is let in."""
    try:
        check.check_origin(headers, opens_a_page)
    except ApiError as error:
        return error.status
    return 200


@pytest.mark.parametrize(
    "host",
    [
        b"127.0.0.1:8080",
        b"localhost",
        b"LOCALHOST:1",
        b"[::1]:8080",
        b"gateway",
        b"x.localhost",
        b"host.docker.internal",
        b"10.1.2.3",
    ],
)
def test_own_names_and_addresses_are_hosts(host: bytes) -> None:
    assert status(access(), [(b"host", host)]) == 200


@pytest.mark.parametrize(
    "host", [b"rebound.example", b"rebound.example:8080", b"127.0.0.1.example.com", b"localhost.evil.com", b"evil.com."]
)
def test_names_that_others_can_point_here_are_not(host: bytes) -> None:
    assert status(access(), [(b"host", host)]) == 421
    assert status(access(ServerSettings(hosts=("*.example", "evil.*"))), [(b"host", b"rebound.example:1")]) == 200


def test_beyond_loopback_names_are_the_operators_business() -> None:
    assert status(access(ServerSettings(host="0.0.0.0")), [(b"host", b"llm.example.com")]) == 200


@pytest.mark.parametrize(
    "origin",
    [
        b"http://evil.example",
        b"http://localhost:3000",
        b"http://127.0.0.1:8081",
        b"null",
        b"file://",
        b"https://127.0.0.1",
    ],
)
def test_pages_of_other_origins_are_refused_unless_listed(origin: bytes) -> None:
    headers = [(b"host", b"127.0.0.1:8080"), (b"origin", origin)]
    assert status(access(), headers) == 403
    assert access().cors_headers(headers) == []
    listed = access(ServerSettings(cors=(origin.decode(),)))
    assert status(listed, headers) == 200
    assert (b"access-control-allow-origin", origin) in listed.cors_headers(headers)


def test_a_pattern_lists_origins() -> None:
    listed = access(ServerSettings(cors=("http://localhost:*",)))
    assert status(listed, [(b"host", b"a"), (b"origin", b"http://localhost:5173")]) == 200
    assert status(listed, [(b"host", b"a"), (b"origin", b"http://localhost.evil.com")]) == 403


@pytest.mark.parametrize("listed", ["http://[::1]:3000", "http://[::1]:*", "*", "app://[a-z]?", "HTTP://[::1]:3000"])
def test_only_the_star_is_special(listed: str) -> None:
    origin = listed.lower().replace(":*", ":3000") if listed != "*" else "null"
    given = access(ServerSettings(cors=(listed,)))
    assert status(given, [(b"host", b"a"), (b"origin", origin.encode())]) == 200
    if listed != "*":
        assert status(given, [(b"host", b"a"), (b"origin", b"http://1:3000")]) == 403
        assert status(given, [(b"host", b"a"), (b"origin", b"app://bc")]) == 403


def test_the_gateways_own_page_is_let_in() -> None:
    own = [(b"host", b"127.0.0.1:8080"), (b"origin", b"http://127.0.0.1:8080"), (b"sec-fetch-site", b"same-origin")]
    assert status(access(), own) == 200


@pytest.mark.parametrize("site", [b"cross-site", b"same-site"])
def test_pictures_scripts_and_forms_of_other_pages_are_refused(site: bytes) -> None:
    headers = [(b"host", b"127.0.0.1"), (b"sec-fetch-site", site), (b"sec-fetch-mode", b"navigate")]
    assert status(access(), headers) == 403
    assert status(access(), headers, opens_a_page=True) == 200  # a link to the dashboard
    assert status(access(), [*headers[:2], (b"sec-fetch-mode", b"no-cors")], opens_a_page=True) == 403


def test_a_preflight_is_answered_with_what_a_listed_origin_may() -> None:
    listed = access(ServerSettings(cors=("http://app.example",)))
    asked = [(b"origin", b"http://app.example"), (b"access-control-request-headers", b"x-api-key")]
    answer = dict(listed.preflight_headers(asked, ("POST", "OPTIONS")))
    assert answer[b"allow"] == b"POST, OPTIONS"
    assert answer[b"access-control-allow-methods"] == b"GET, POST, DELETE, OPTIONS"
    assert b"PUT" in dict(listed.preflight_headers(asked, ("PUT", "OPTIONS")))[b"access-control-allow-methods"]
    assert answer[b"access-control-allow-headers"] == b"x-api-key"
    foreign = dict(listed.preflight_headers([(b"origin", b"http://evil.example")], ("POST",)))
    assert not any(name.startswith(b"access-control") for name in foreign)


def bearer(key: str) -> Headers:
    return [(b"authorization", f"Bearer {key}".encode())]


def test_without_keys_who_reaches_it_runs_it() -> None:
    assert access().identify([]) == Caller(is_admin=True)


@pytest.mark.parametrize(
    "headers", [[], bearer(""), bearer("ab"), bearer("a b"), [(b"authorization", b"Basic a")], [(b"x-api-key", b"")]]
)
def test_only_the_key_opens(headers: Headers) -> None:
    with pytest.raises(ApiError) as refused:
        access(ServerSettings(api_keys=("a",))).identify(headers)
    assert refused.value.status == 401
    assert dict(refused.value.headers)[b"www-authenticate"].startswith(b"Bearer")


def test_a_single_key_is_its_owners_and_several_are_clients() -> None:
    assert access(ServerSettings(api_keys=("a",))).identify(bearer("a")).is_admin
    several = access(ServerSettings(api_keys=("a", "b")))
    assert [several.identify(bearer(key)).is_admin for key in "ab"] == [False, False]
    with_admin = access(ServerSettings(api_keys=("a",), admin_key="root"))
    assert [with_admin.identify(bearer(key)).is_admin for key in ("a", "root")] == [False, True]


@pytest.mark.parametrize(
    ("path", "may"),
    [
        ("/v1/chat/completions", True),
        ("/v1/messages/count_tokens", True),
        ("/v1/responses/resp_1/cancel", True),
        ("/v1/embeddings", True),
        ("/api/delete", False),
        ("/api/pull", False),
        ("/v1/load_lora_adapter", False),
        ("/slots/0", False),
        ("/sleep", False),
        ("/models/load", False),
        ("/v1/chat/completions/../../paceline/reload", False),
    ],
)
def test_a_clients_key_opens_what_computes_and_nothing_that_changes_an_engine(path: str, may: bool) -> None:
    check = access(ServerSettings(api_keys=("a", "b")))
    client = check.identify(bearer("a"))
    refused = contextlib.nullcontext() if may else pytest.raises(ApiError, match="does not open")
    with refused:
        check.admit(client, Audience.CLIENTS, path)
    with pytest.raises(ApiError):
        check.admit(client, Audience.ADMINISTRATORS, "/paceline/requests")


def test_a_named_key_opens_its_paths() -> None:
    check = access(
        None,
        KeySettings(name="batch", key="k", paths=("/v1/embeddings",)),
        KeySettings(name="ops", key="o", admin=True),
    )
    client = check.identify(bearer("k"))
    assert client.name == "batch"
    check.admit(client, Audience.CLIENTS, "/v1/embeddings")
    with pytest.raises(ApiError, match="batch"):
        check.admit(client, Audience.CLIENTS, "/v1/chat/completions")
    check.admit(check.identify(bearer("o")), Audience.ADMINISTRATORS, "/paceline/reload")


def test_keys_come_from_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIED_KEY", "real")
    check = access(ServerSettings(api_keys=("env:TRIED_KEY",)))
    assert check.identify(bearer("real")).is_admin
    with pytest.raises(ApiError):
        check.identify(bearer("env:TRIED_KEY"))
    for value in ("", None):
        if value is None:
            monkeypatch.delenv("TRIED_KEY")
        else:
            monkeypatch.setenv("TRIED_KEY", value)
        with pytest.raises(ConfigurationError, match="TRIED_KEY"):
            access(ServerSettings(api_keys=("env:TRIED_KEY",)))


@pytest.mark.parametrize(
    ("host", "only_here"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.2", False),
    ],
)
def test_what_only_this_machine_reaches(host: str, only_here: bool) -> None:
    assert is_loopback(host) is only_here


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/files/..\\..\\slots", 403),
        ("/v1/files/..;/slots", 403),
        ("/v1/files/%252e%252e/slots", 403),
        ("/v1/files/%2e%2e%5cslots", 403),
        ("/v1/files/a..b", 200),
    ],
)
def test_a_path_leads_up_in_no_spelling(path: str, status: int) -> None:
    access = Access(parse('[[key]]\nname = "a"\nkey = "k"\npaths = ["/v1/files/*"]\n' + lane("a", "http://a"), "t"))
    client = access.identify([(b"authorization", b"Bearer "), (b"x-api-key", b"k")])
    refused = pytest.raises(ApiError, match="does not open") if status == 403 else nullcontext()
    with refused:
        access.admit(client, Audience.CLIENTS, unquote(path))


@pytest.mark.parametrize(
    ("host", "origin", "is_let_in"),
    [
        ("127.1", None, True),
        ("0x7f.1:8080", None, True),
        ("1.2.3.4.example", None, False),
        ("localhost", "http://LOCALHOST:80", True),
        ("LocalHost:80", "http://localhost", True),
        ("localhost:8080", "http://localhost", False),
        ("localhost:8080", "http://localhost:80", False),
        ("null", "null", False),
    ],
)
def test_spellings_of_hosts_and_origins(host: str, origin: str | None, is_let_in: bool) -> None:
    headers = [(b"host", host.encode()), *([(b"origin", origin.encode())] if origin else [])]
    try:
        Access(parse(lane("a", "http://a"), "t")).check_origin(headers, opens_a_page=False)
        assert is_let_in
    except ApiError:
        assert not is_let_in
