"""Configuration files: what is taken, and how errors are said."""

import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.conftest import LOCAL_KINDS

from paceline.api_keys import resolved
from paceline.configuration import ConfigurationError, load, parse
from paceline.configuration.reference import reference
from paceline.decision import EXPLORATION
from paceline.engines import ENGINES
from paceline.engines.llama_cpp import LlamaCppSettings
from paceline.settings import Configuration
from paceline.types import Api, Lane, Strategy

GOOD = """\
[server]
port = 9000
default_lane = "mtp"

[[device]]
name = "gpu0"
sharing = "turns"

[[engine]]
name = "plain"
kind = "llama.cpp"
url = "http://127.0.0.1:9001"
device = "gpu0"

[[engine]]
name = "mtp"
kind = "llama.cpp"
launch = ["llama-server", "-m", "model.gguf", "--port", "{port}"]
strategy = "mtp"
n_max = 3
device = "gpu0"
"""


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        parse(text, "file.toml")
    return str(caught.value).splitlines()


def test_a_good_file() -> None:
    configuration = parse(GOOD)
    assert configuration.server.port == 9000
    assert configuration.server.host == "127.0.0.1"
    assert [lane for engine in configuration.engine for lane in engine.lanes()] == [
        Lane("plain", "plain", Strategy("autoregressive"), "gpu0"),
        Lane("mtp", "mtp", Strategy("mtp", 3), "gpu0"),
    ]
    assert configuration.device_settings("gpu0").takes_turns


def test_engines_of_a_cpu_take_turns_unless_told_otherwise() -> None:
    assert Configuration().device_settings("cpu").takes_turns
    assert Configuration().device_settings("cpu1").takes_turns
    assert not Configuration().device_settings("gpu0").takes_turns


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("port = 9000", "prot = 9000", "file.toml:2: server.prot: unknown key; known here: host, port,"),
        ("port = 9000", 'port = "9000"', "file.toml:2: server.port: Expected `int`, got `str`"),
        ("port = 9000", "port = 70000", "file.toml:2: server.port: Expected `int` <= 65535"),
        (
            'default_lane = "mtp"',
            'default_lane = "x"',
            "file.toml:3: server.default_lane: no lane 'x'; there are: plain, mtp",
        ),
        ('name = "plain"\nkind = "llama.cpp"', 'name = "plain"', "file.toml:9: engine[1]: needs the key kind"),
        ('name = "mtp"', 'name = "plain"', "file.toml:16: engine[2].name: 'plain' is the name of engine 1 already"),
        ("n_max = 3", "n_max = 0", "file.toml:20: engine[2].n_max: Expected `int` >= 1"),
        ('strategy = "mtp"', 'strategy = "turbo"', "file.toml:19: engine[2].strategy: Invalid enum value 'turbo'"),
        ('"{port}"', '"80"', "file.toml:18: engine[2].launch: has no {port}"),
        ('url = "http://127.0.0.1:9001"', "", "file.toml:9: engine[1]: needs either url"),
        (
            'url = "http://127.0.0.1:9001"',
            'url = "localhost:9001"',
            "file.toml:12: engine[1].url: Expected `str` matching",
        ),
        ('name = "gpu0"', 'name = "gpu1"', "file.toml:6: device[1].name: no engine runs on a device 'gpu1'"),
        (
            "[server]",
            "[servre]",
            "file.toml:1: servre: unknown key; known here: server, routing, placement, privacy, evidence, "
            "sharing, cost, cloud, budget, rule, key, device, engine, model",
        ),
        ("port = 9000", "port = ", "file.toml:2: Invalid value"),
        ("[[device]]", "[device]", "file.toml:5: device"),
    ],
)
def test_errors_name_file_line_and_key(old: str, new: str, expected: str) -> None:
    assert old in GOOD
    said = problems(GOOD.replace(old, new, 1))
    assert any(line.startswith(expected) for line in said), said


def with_server(more: str) -> str:
    return GOOD.replace("port = 9000", f"port = 9000\n{more}", 1)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:99999",
        "http://127.0.0.1:0",
        "http://127.0.0.1:-1",
        "http://127.0.0.1:abc",
        "http://[::1",
        "http://",
        "http:///v1",
        "http://:9001",
        "http://exa mple",
        "http://example\\u0000",
        "http://a..b:9001",
        "http://999.1.2.3:9001",
        "http://user:hunter2@127.0.0.1:9001",
        "http://127.0.0.1:9001/?key=hunter2",
        "http://127.0.0.1:9001/#x",
        "ftp://127.0.0.1:9001",
        "http://127.0.0.1:9000",
        "http://localhost:9000/v1",
    ],
)
def test_urls_that_reach_no_engine(url: str) -> None:
    said = problems(GOOD.replace("http://127.0.0.1:9001", url))
    assert said[0].startswith("file.toml:12: engine[1].url: ")
    assert "hunter2" not in said[0]


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9001/v1", "http://[::1]:9001", "https://example.com", "http://my_box:9001/base/"]
)
def test_urls_that_may_reach_one(url: str) -> None:
    parse(GOOD.replace("http://127.0.0.1:9001", url))


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ('api_keys = [""]', "file.toml:3: server.api_keys: "),
        ('api_keys = [" "]', "file.toml:3: server.api_keys: the key holds a space"),
        ('api_keys = ["a\\nb"]', "file.toml:3: server.api_keys: the key holds a space, a line's end"),
        ('api_keys = ["env:"]', "file.toml:3: server.api_keys: env: names no variable"),
        ('api_keys = ["env:PACELINE_UNSET"]', "file.toml:3: server.api_keys: the variable PACELINE_UNSET is not set"),
        ('api_keys = ["env:PACELINE_EMPTY"]', "file.toml:3: server.api_keys: the variable PACELINE_EMPTY is empty"),
        ('api_keys = ["k", "k"]', "file.toml:3: server.api_keys: item 2 is the same key as item 1"),
        ('api_keys = ["k"]\nadmin_key = "k"', "file.toml:3: server.api_keys: item 1 is the same key as admin_key"),
        ('api_keys = ["secret", "env:PACELINE_SET"]', "file.toml:3: server.api_keys: item 2 is the same key as item 1"),
        ('admin_key = ""', "file.toml:3: server.admin_key: "),
        ('admin_key = "env:PACELINE_UNSET"', "file.toml:3: server.admin_key: the variable PACELINE_UNSET"),
        ('cors = ["localhost:3000"]', "file.toml:3: server.cors: 'localhost:3000' is no origin"),
        ('cors = ["http://localhost:3000/"]', "file.toml:3: server.cors: 'http://localhost:3000/' is no origin"),
        ('cors = ["http://localhost:99999"]', "file.toml:3: server.cors: "),
        ('cors = [""]', "file.toml:3: server.cors: "),
        ('hosts = ["http://box.example"]', "file.toml:3: server.hosts: "),
        ('hosts = ["box.example:8080"]', "file.toml:3: server.hosts: "),
        ('hosts = ["box example"]', "file.toml:3: server.hosts: "),
        ('hosts = [""]', "file.toml:3: server.hosts: "),
        ('host = "0.0.0.0"', "file.toml:3: server.host: 0.0.0.0 is open to other machines, and no key is asked for"),
        ('host = "::"', "file.toml:3: server.host: :: is open"),
        ('host = "192.168.1.5"', "file.toml:3: server.host: 192.168.1.5 is open"),
        ('host = "box.example"', "file.toml:3: server.host: box.example is open"),
        ('host = ""', "file.toml:3: server.host: is empty"),
        ('host = "http://127.0.0.1"', "file.toml:3: server.host: 'http://127.0.0.1' is neither"),
        ('host = "127.0.0.1:80"', "file.toml:3: server.host: '127.0.0.1:80' is neither"),
        ('host = "a..b"', "file.toml:3: server.host: 'a..b' is neither"),
    ],
)
def test_who_may_come_in_is_said_right(more: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACELINE_EMPTY", "")
    monkeypatch.setenv("PACELINE_SET", "secret")
    monkeypatch.delenv("PACELINE_UNSET", raising=False)
    said = problems(with_server(more))
    assert said[0].startswith(expected), said
    assert len(said) == 1
    assert "secret" not in said[0]


@pytest.mark.parametrize(
    "more",
    [
        'host = "0.0.0.0"\napi_keys = ["k"]',
        'host = "::"\nadmin_key = "k"',
        'host = "0.0.0.0"\ninsecure = true',
        'host = "localhost"',
        'host = "::1"',
        'cors = ["*", "http://localhost:3000", "https://*.example.com", "http://127.0.0.1:*", "app://x"]',
        'hosts = ["box", "box.example", "*.example.com", "192.168.1.5", "fd00::1"]',
    ],
)
def test_ways_to_let_people_in(more: str) -> None:
    parse(with_server(more))


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ('[[key]]\nname = "a"\nkey = "1"\n[[key]]\nname = "a"\nkey = "2"', "key[2].name: 'a' is the name of key 1"),
        ('[[key]]\nname = "a"\nkey = "1"\n[[key]]\nname = "b"\nkey = "1"', "key[2].key: that of b is the same key"),
        ('[[key]]\nname = "a"\nkey = ""', "key[1].key: "),
        ('[[key]]\nname = "a"\nkey = "env:PACELINE_UNSET"', "key[1].key: the variable PACELINE_UNSET is not set"),
        ('[[key]]\nname = "a"\nkey = "1"\npaths = ["v1/models"]', "key[1].paths: 'v1/models' is no path"),
        ('[[key]]\nname = "a"\nkey = "1"\nadmin = true\npaths = ["/v1/*"]', "key[1].paths: an administrator's"),
        ('[[model]]\nname = "m"\nlanes = ["gpu"]', "model[1].lanes: no lane 'gpu'; there are: plain, mtp"),
        ('[[model]]\nname = "m"\nengine_models = { gpu = "x" }', "model[1].engine_models: no engine 'gpu'"),
        ('[[model]]\nname = "m"\naliases = ["A", "a"]', "model[1].aliases: 'a' is there twice"),
        ('[[model]]\nname = "m"\n[[model]]\nname = "n"\naliases = ["M"]', "model[2].aliases: 'M' stands for the model"),
        ('[[model]]\nname = "m"\n[[model]]\nname = "m"', "model[2].name: 'm' is there twice"),
        ('[[model]]\nname = "m"\naliases = [""]', "model[1].aliases: an empty name"),
        ('[[rule]]\nlane = "mtp"\napi_key = "env:PACELINE_UNSET"', "rule[1].api_key: the variable PACELINE_UNSET"),
        ('[[rule]]\nlane = "mtp"\ntask = "coding"', "rule[1].task: Invalid enum value 'coding'; it may be: "),
        (
            '[[engine]]\nname = "e"\nkind = "llamacpp"\nurl = "http://x"',
            "engine[3].kind: Invalid enum value 'llamacpp'",
        ),
        (
            '[[engine]]\nname = "e"\nkind = "vllm"\nurl = "http://x"\nenvironment = ["A"]',
            "engine[3].environment: only an engine that",
        ),
        (
            '[[engine]]\nname = "e"\nkind = "llama.cpp"\nlaunch = ["embedded", "-m", "x"]',
            "engine[3].launch: has no {port}",
        ),
        ('[[device]]\nname = "gpu0"', "device[2].name: 'gpu0' is the name of device 1 already"),
    ],
)
def test_tables_that_cannot_be_meant(table: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PACELINE_UNSET", raising=False)
    said = problems(f"{GOOD}\n{table}\n")
    assert any(expected in line for line in said), said


@pytest.mark.parametrize("kind", LOCAL_KINDS)
def test_an_engines_table_is_read_by_its_kind(kind: str) -> None:
    table = f'[[engine]]\nname = "e"\nkind = "{kind}"\nurl = "http://127.0.0.1:9001"\ndevice = "gpu0"\nslots = 2\n'
    (engine,) = parse(table).engine
    assert type(engine) is ENGINES[kind].settings_type
    assert (engine.kind, engine.device, engine.slots, engine.launch) == (kind, "gpu0", 2, ())


@pytest.mark.parametrize(
    ("kind", "key", "kinds"),
    [
        ("vllm", 'draft_model = "small"', 'those of kind "lmstudio" do'),
        ("ollama", "caps = [2]", 'those of the kinds "llama.cpp", "ik_llama.cpp", "vllm", "mlx-lm", "mtplx", "imp" do'),
    ],
)
def test_a_key_of_another_kind_says_whose_it_is(kind: str, key: str, kinds: str) -> None:
    said = problems(f'[[engine]]\nname = "e"\nkind = "{kind}"\nurl = "http://127.0.0.1:1"\n{key}\n')
    name = key.split()[0]
    assert said == [
        f'file.toml:5: engine[1].{name}: an engine of kind "{kind}" does not have this key; only {kinds}: leave it '
        "out, or name another kind"
    ]


def test_the_keys_of_an_unknown_kind_are_checked_all_the_same() -> None:
    said = problems('[[engine]]\nname = "e"\nkind = "vlm"\nurl = "http://127.0.0.1:1"\ncaps = [0]\nsolts = 1\n')
    assert [line.split(": ")[1] for line in said] == ["engine[1].kind", "engine[1].caps", "engine[1].solts"]
    assert 'did you mean "vllm"?' in said[0]
    assert 'did you mean "slots"?' in said[2]


def test_the_settings_need_no_reader_and_no_engine() -> None:
    asks = "import sys, paceline.settings, paceline.api_keys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True, check=True).stdout.split()
    assert "paceline.settings" in loaded
    rooms = ("configuration", "engines", "processes", "wire", "serving", "http")
    assert not [name for name in loaded if name.startswith(tuple(f"paceline.{room}" for room in rooms))]


def test_the_default_share_of_exploration_is_the_decisions() -> None:
    assert Configuration().routing.exploration == EXPLORATION


def test_a_word_that_is_close_is_named() -> None:
    assert 'did you mean "llama.cpp"?' in problems(GOOD.replace('"llama.cpp"', '"llamacpp"', 1))[0]
    assert 'did you mean "port"?' in problems(GOOD.replace("port = 9000", "prot = 9000"))[0]


def test_a_file_that_others_read_needs_no_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PACELINE_UNSET", raising=False)
    file = tmp_path / "paceline.toml"
    file.write_text(with_server('host = "0.0.0.0"\nadmin_key = "env:PACELINE_UNSET"'))
    assert load(file, here=False).server.admin_key == "env:PACELINE_UNSET"
    with pytest.raises(ConfigurationError, match="PACELINE_UNSET"):
        load(file)


def test_a_command_line_takes_the_files_place(tmp_path: Path) -> None:
    file = tmp_path / "paceline.toml"
    file.write_text("\ufeff" + with_server('host = "0.0.0.0"'), "utf-8")
    assert load(file, {"insecure": True}).server.insecure
    assert load(file, {"host": "127.0.0.1", "port": 1}).server.port == 1
    with pytest.raises(ConfigurationError, match=r"paceline\.toml:3: server\.host"):
        load(file)
    file.write_text(GOOD.replace("port = 9000", ""))
    with pytest.raises(ConfigurationError, match=r"server\.port: .*65535"):
        load(file, {"port": 99_999})


def test_what_is_nested_beyond_all_bounds() -> None:
    assert "nested too deeply" in problems(f"x = {'[' * 20_000}")[0]


CLOUD = '[[engine]]\nname = "c"\nkind = "openai-api"\nmodels = ["m"]\napi_key = "env:PACELINE_CLOUD"\n'


def test_a_provider_needs_a_name_a_model_and_where_its_key_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACELINE_CLOUD", "sk-1")
    openai, anthropic = parse(CLOUD + CLOUD.replace('"c"', '"d"').replace("openai-api", "anthropic-api")).engine
    assert (openai.base_url, anthropic.base_url) == ("https://api.openai.com/v1", "https://api.anthropic.com")
    assert openai.speaks == {Api.OPENAI_CHAT, Api.OPENAI_RESPONSES}
    assert anthropic.speaks == {Api.ANTHROPIC_MESSAGES}
    assert parse(CLOUD).secret_variables == {"PACELINE_CLOUD"}
    assert openai.is_cloud and not openai.launch


@pytest.mark.parametrize(
    ("url", "path", "expected"),
    [
        ("https://openrouter.ai/api/v1", "/v1/chat/completions", "https://openrouter.ai/api/v1/chat/completions"),
        ("https://api.deepseek.com/", "/v1/chat/completions", "https://api.deepseek.com/v1/chat/completions"),
        ("https://x.example/v1beta/openai/", "/v1/responses?a=b", "https://x.example/v1beta/openai/responses?a=b"),
        ("https://x.example/v1", "/chat/completions", "https://x.example/v1/chat/completions"),
    ],
)
def test_where_a_providers_requests_go(url: str, path: str, expected: str) -> None:
    (engine,) = parse(f'{CLOUD}url = "{url}"\n', here=False).engine
    assert f"{engine.base_url}{engine.path(path)}" == expected
    assert engine.speaks == {Api.OPENAI_CHAT}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('"env:PACELINE_CLOUD"', '"sk-secret"', 'engine[1].api_key: does not stand here itself: write "env:NAME"'),
        ('api_key = "env:PACELINE_CLOUD"', "", "engine[1]: needs the key api_key"),
        ('"env:PACELINE_CLOUD"', '"file:/nowhere"', "engine[1].api_key: the file /nowhere can't be read: No such file"),
        ('models = ["m"]', "", "engine[1]: needs the key models"),
        ('"c"', '"c"\nurl = "http://api.example.com/v1"', "engine[1].url: is http: the key and all requests"),
        ('"c"', '"c"\npass_headers = ["Cookie"]', "engine[1].pass_headers: Cookie holds what the client is known by"),
        ('"c"', '"c"\napis = ["llama.cpp"]', "engine[1].apis: no provider speaks llama.cpp"),
        ('"c"', '"c"\nheaders = { a = "env:PACELINE_UNSET" }', "the variable PACELINE_UNSET is not set"),
        ('"c"', '"c"\nslots = 2', 'engine[1].slots: an engine of kind "openai-api" does not have this key'),
    ],
)
def test_what_a_provider_cannot_be_used_with(
    old: str, new: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PACELINE_CLOUD", "sk-secret")
    monkeypatch.delenv("PACELINE_UNSET", raising=False)
    said = problems(CLOUD.replace(old, new, 1))
    assert any(expected in line for line in said), said
    assert "sk-secret" not in str(said)


def test_keys_may_stand_in_files(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("  sk-1\n")
    assert resolved(f"file:{file}") == "sk-1"
    for content, expected in (("", "is empty"), ("two words", "holds a space")):
        file.write_text(content)
        with pytest.raises(ConfigurationError, match=expected):
            resolved(f"file:{file}")


def test_secrets_are_read_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACELINE_SET", "secret")
    assert resolved("plain-key") == "plain-key"
    assert resolved("env:PACELINE_SET") == "secret"
    monkeypatch.setenv("PACELINE_SET", "secret\n")
    with pytest.raises(ConfigurationError, match="PACELINE_SET holds a space, a line's end") as caught:
        resolved("env:PACELINE_SET")
    assert "secret" not in str(caught.value)


def test_all_errors_are_said_at_once() -> None:
    assert len(problems("server.port = 'x'\nserver.hots = 'y'\n[[engine]]\nname = 'a b'\n")) >= 4


def test_an_empty_file_says_what_is_missing() -> None:
    assert problems("") == ["file.toml:1: engine: no engine is configured; add an [[engine]] table"]


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nope\.toml: No such file"):
        load(tmp_path / "nope.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match=r"binary\.toml: "):
        load(tmp_path / "binary.toml")


def test_the_reference_in_the_docs_is_the_codes() -> None:
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    begin, end = "<!-- generated: python -m paceline.configuration.reference -->\n", "<!-- end of generated -->"
    assert page.partition(begin)[2].partition(end)[0].strip() == reference().strip()


def test_the_example_in_the_docs_is_valid() -> None:
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    parse(page.partition("```toml\n")[2].partition("```")[0])


def test_what_was_learned_is_kept_where_nobody_says_what_steps_cost() -> None:
    """The parts of ``decoding`` go into fingerprints: a new one that is not set must not change them."""
    usual = LlamaCppSettings(name="a", url="http://127.0.0.1:1")
    assert len(usual.decoding) == 6
    assert replace(usual, drafted_token_cost=0.16).decoding == (*usual.decoding, 0.16)
