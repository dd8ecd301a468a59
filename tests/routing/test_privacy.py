"""Which requests are private, and that what can't be told is."""

import json
from time import perf_counter
from typing import Any

import pytest
from msgspec.structs import replace

from paceline.configuration import ConfigurationError, parse
from paceline.routing.placer import Placer
from paceline.routing.privacy import MAX_SEARCHED_BYTES, SECRETS, Privacy, text_of
from paceline.settings import Configuration
from paceline.types import Api, Request

ENGINE = '[[engine]]\nname = "gpu"\nkind = "openai"\nurl = "http://127.0.0.1:1"\n'
RULES = (
    """
[privacy]
paths = ["/v1/legal/*"]
headers = ["x-team: legal", "x-confidential"]
patterns = ['(?i)patient \\d+', 'naïve']
secrets = true
[[key]]
name = "legal"
key = "k"
private = true
[[model]]
name = "house"
aliases = ["house-*"]
private = true
lanes = ["gpu"]
"""
    + ENGINE
)
PRIVACY = Privacy(parse(RULES, here=False))


def asked(content: str = "hello", ascii_only: bool = True, **more: Any) -> Request:
    body = json.dumps({"messages": [{"role": "user", "content": content}]}, ensure_ascii=ascii_only).encode()
    return replace(Request(Api.OPENAI_CHAT, "/v1/chat/completions", body, {}), **more)


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (asked(), ""),
        (asked(private="header x-paceline-private"), "header x-paceline-private"),
        (asked(headers=((b"x-paceline-private", b"yes"),)), "header x-paceline-private"),
        (asked(headers=((b"x-paceline-private", b"1"),)), "header x-paceline-private"),
        (asked(headers=((b"x-paceline-private", b"no"),)), ""),
        (asked(headers=((b"x-team", b"legal"),)), "header x-team"),
        (asked(headers=((b"x-team", b"sales"),)), ""),
        (asked(headers=((b"x-team", b"sales"), (b"x-team", b"legal"))), "header x-team"),
        (asked(headers=((b"x-team", b"legal "),)), "header x-team"),
        (asked(headers=((b"x-team", b"Legal"),)), "header x-team"),
        (asked(headers=((b"x-team", b"sales, legal"),)), "header x-team"),
        (asked(headers=((b"x-team", b"legal-not"),)), ""),
        (asked(headers=((b"x-confidential", b""),)), "header x-confidential"),
        (asked(client="legal"), "key legal"),
        (asked(client="sales"), ""),
        (asked(model="HOUSE"), "its model"),
        (asked(model="house-large"), "its model"),
        (asked(served_model="house"), "model house"),
        (asked(model="household"), ""),
        (asked(path="/v1/legal/search?q=1"), "path"),
        (asked("of Patient 4711"), "pattern 1"),
        (asked("so naïve"), "pattern 2"),
        (asked("so naïve", ascii_only=False), "pattern 2"),
        (asked("the patient\n4711"), ""),
        (asked("-----BEGIN OPENSSH PRIVATE KEY-----"), "it holds what looks like a secret"),
        (asked('{"api_key": "abcdefghijklmnop0123"}'), "it holds what looks like a secret"),
        (asked("x" * MAX_SEARCHED_BYTES), "its body can't be searched"),
    ],
)
def test_what_is_private_is_known_with_a_reason(request_: Request, why: str) -> None:
    assert PRIVACY.why(request_) == why


def test_a_pattern_sees_what_is_hidden_in_the_form() -> None:
    hidden = [
        b'{"messages": [], "messages": [{"content": "patient 4711"}], "messages": []}',
        b'{"a": "\\u0070atient 4711"}',
        b'{"a": {"b": [[{"patient 4711": 1}]]}}',
        b'{"a": "patient\\u00204711"}',
        b"--xxx\r\n\r\npatient 4711\r\n--xxx--",
    ]
    for body in hidden:
        assert PRIVACY.why_passed("/v1/files", (), body, None) == "pattern 1", body
    assert PRIVACY.why_passed("/v1/files/patient 12", (), b"", None) == "pattern 1"
    privacy = Privacy(parse("privacy.secrets = true\n" + ENGINE, here=False))
    assert privacy.why_passed("/v1/files", (), b"zipped", None, is_readable=False) == "its body can't be searched"


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        (((b"x-title", b"of patient 4711"),), "pattern 1"),
        (((b"x-title", b"of%20patient%204711"),), "pattern 1"),
        (((b"x-title", "naïve".encode()),), "pattern 2"),
        (((b"x-title", "naïve".encode("latin-1")),), "pattern 2"),
        (((b"idempotency-key", b"ghp_" + b"a" * 36),), "it holds what looks like a secret"),
        (((b"x-api_key", b"abcdefghijklmnop0123"),), "it holds what looks like a secret"),
        (((b"authorization", b"Bearer sk-abcdefghijklmnopqrstuvwx"), (b"cookie", b"t=patient 4711")), ""),
        (((b"x-title", b"of patient"), (b"x-id", b"4711")), ""),
    ],
)
def test_headers_are_searched_too_but_for_the_clients_credentials(
    headers: tuple[tuple[bytes, bytes], ...], why: str
) -> None:
    assert PRIVACY.why(asked(headers=headers)) == why
    assert PRIVACY.why_passed("/v1/files", headers, b"", None) == why


ARGUMENTS = json.dumps({"text": "Dear all,\npatient 4711"})
"""As a model calls a tool: JSON in a string of JSON."""


@pytest.mark.parametrize(
    "body",
    [
        b"\xef\xbb\xbf" + json.dumps({"x": "a\npatient 4711"}).encode(),
        json.dumps({"x": "a\fpatient 4711"}).encode(),
        json.dumps({"x": "a\bpatient 4711"}).encode(),
        json.dumps({"arguments": ARGUMENTS}).encode(),
        json.dumps({"arguments": json.dumps({"file": ARGUMENTS})}).encode(),
        json.dumps({"arguments": json.dumps({"file": json.dumps({"x": "a\u00a0\U0001f600patient 4711"})})}).encode(),
        b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + json.dumps({"x": "a\npatient 4711"}).encode(),
        json.dumps({"x": "a patient 4711"}).encode("utf-16"),
        json.dumps({"x": "a patient 4711"}).encode("utf-16-be"),
    ],
)
def test_a_word_is_found_behind_every_escape(body: bytes) -> None:
    privacy = Privacy(parse("[privacy]\npatterns = ['(?<!\\w)patient \\d+']\n" + ENGINE, here=False))
    assert privacy.why_passed("/v1/files", (), body, None) == "pattern 1"


@pytest.mark.parametrize("query", ["q=patient%204711", "q=patient+4711", "q=%70atient%204711"])
def test_a_pattern_is_looked_for_in_what_an_address_stands_for(query: str) -> None:
    assert PRIVACY.why_passed(f"/v1/files?{query}", (), b"", None) == "pattern 1"


@pytest.mark.parametrize(
    "path", ["/v1/%6cegal/x", "//v1/legal/x", "/v1/./legal/x", "/v1/files/../legal/x", "/v1/legal/x/"]
)
def test_a_path_is_private_however_it_is_spelt(path: str) -> None:
    assert PRIVACY.why_passed(path, (), b"", None) == "path"


def test_a_body_that_can_not_be_read_may_name_a_private_model() -> None:
    rules = '[[model]]\nname = "house"\nprivate = true\nlanes = ["gpu"]\n' + ENGINE
    privacy = Privacy(parse(rules, here=False))
    assert "can't be told" in privacy.why_passed("/v1/embeddings", (), b"packed", None, is_readable=False)
    assert "can't be told" in privacy.why_passed("/v1/embeddings", (), b"odd", None, None)
    assert "its model" in privacy.why_passed("/v1/embeddings", (), b"odd", None, ("public", "house"))
    for target in (
        "/props?a=1&model=House",
        "/props?model=h%6fuse",
        "/v1beta/models/house:embed",
        "/deployments/house/x",
    ):
        assert "its model" in privacy.why_passed(target, (), b"", None), target
    assert not privacy.why_passed("/v1/embeddings", (), b"{}", None)


@pytest.mark.parametrize(
    ("target", "is_private"),
    [
        ("/v1beta/models/qwen3:8b:generateContent", True),
        ("/v1beta/models/qwen3%3A8B:generateContent", True),
        ("/upstream/qwen3:8b/infill", True),
        ("/upstream/Qwen/Qwen3-8B/x", True),
        ("/upstream/qwen%2Fqwen3-8b", True),
        ("/models;model=qwen3:8b", True),
        ("/upstream/org/x-private/infill", True),
        ("/upstream/qwen3:8b-instruct/infill", False),
        ("/upstream/my-qwen3:8b/infill", False),
        ("/upstream/x-private-not/infill", False),
        ("/v1beta/models/qwen3:generateContent", False),
    ],
)
def test_a_model_with_a_colon_or_a_slash_is_found_in_an_address(target: str, is_private: bool) -> None:
    aliases = '["qwen3:8b", "Qwen/Qwen3-8B", "*-private"]'
    rules = f'[[model]]\nname = "house"\naliases = {aliases}\nprivate = true\nlanes = ["gpu"]\n'
    privacy = Privacy(parse(rules + ENGINE, here=False))
    assert privacy.why_passed(target, (), b"", None) == ("its model" if is_private else "")


def test_escapes_are_read_as_json_has_them() -> None:
    text = 'a "quoted" back\\slash \\n no line\nline\ttab é 😀 /'
    assert text in text_of(json.dumps({"x": text}).encode())
    assert text in text_of(json.dumps({"x": text}, ensure_ascii=False).encode())


def test_a_request_of_a_program_is_searched_too() -> None:
    assert PRIVACY.why(Request.of({"prompt": "patient 4711"})) == "pattern 1"
    assert PRIVACY.why(Request.of({"prompt": "nobody"})) == ""


@pytest.mark.parametrize(
    "secret",
    [
        "AKIAABCDEFGHIJKLMNOP",
        "ghp_" + "a" * 36,
        "https://hooks.slack.com/services/T00000000/B00000000/" + "a" * 24,
        "https://discord.com/api/webhooks/123456789012345678/" + "a" * 40,
        "123456789:AA" + "b" * 33,
        "SK" + "0a" * 16,
        "0a" * 16 + "-us12",
        "sq0csp-" + "a" * 43,
        "AccountKey=" + "a" * 86 + "==",
        "aws_secret_access_key = " + "a" * 40,
        "xoxb-1234567890-abc",
        "sk-proj-" + "a1" * 12,
        "rk_live_" + "a1" * 10,
        "AIza" + "b" * 35,
        "npm_" + "c" * 36,
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NSJ9.sig",
        "postgres://app:hunter22@db.local/app",
        'PASSWORD = "correcthorsebattery1"',
    ],
)
def test_shapes_of_secrets_are_known(secret: str) -> None:
    assert PRIVACY.why(asked(f"use {secret} for it"))


@pytest.mark.parametrize(
    "text",
    [
        "My password is good. The secret: be kind. A key question is this.",
        "see http://example.org:8080/a@b and https://github.com/a/b",
        "def key(x): return secret(x)\ntask-force and ask-me-anything-you-like-about-it",
        "the api_key = os.environ['KEY']",
    ],
)
def test_what_is_no_secret_is_let_go(text: str) -> None:
    assert PRIVACY.why(asked(text)) == ""


def test_looking_takes_bounded_time() -> None:
    text = "some words of a text, key = value, http://a.b/c sk- secret: x " * 10_000
    for request in (asked(text), asked("p" * 3_000_000), asked("\\u0041" * 500_000), asked("é" * 500_000)):
        began_s = perf_counter()
        PRIVACY.why(request)
        assert perf_counter() - began_s < 3.0


def test_what_was_looked_at_is_not_searched_again_by_the_same_rules() -> None:
    placer, other = Placer(parse(RULES, here=False)), Placer(parse(RULES, here=False))
    public = asked(cleared_by=placer.privacy)
    changed = replace(public, body=asked("patient 4711").body)  # which never happens: only to see who looks
    assert placer.why_private(changed) == ""
    assert other.why_private(changed) == "pattern 1"
    placer.take_up(parse(RULES, here=False))  # a reload: other rules
    assert placer.why_private(changed) == "pattern 1"
    assert placer.why_private(replace(public, served_model="house")) == "model house"
    assert placer.why_private(replace(public, private="header x-team")) == "header x-team"


def test_what_can_not_be_told_is_private(monkeypatch: pytest.MonkeyPatch) -> None:
    placer = Placer(Configuration())
    assert placer.why_private(asked()) == ""
    monkeypatch.setattr(placer.privacy, "why", lambda _: 1 / 0)
    assert placer.why_private(asked())


def test_a_pattern_that_can_not_be_searched_in_time_is_an_error_of_the_configuration() -> None:
    with pytest.raises(ConfigurationError, match=r"privacy\.patterns: '\(a\+\)\+b' might take too long"):
        parse("[privacy]\npatterns = ['(a+)+b']\n" + ENGINE)


def test_each_shape_has_a_sign_that_stands_in_all_that_it_finds() -> None:
    assert all(sign == sign.strip() and sign for signs, _ in SECRETS for sign in signs)
