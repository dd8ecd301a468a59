"""Configuration files: what is taken, and how errors are said."""

from pathlib import Path

import pytest

from paceline.configuration import Configuration, ConfigurationError, load, parse, reference
from paceline.types import Lane, Strategy

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
            "file.toml:1: servre: unknown key; known here: server, routing, evidence, cost, cloud, rule, key, "
            "device, engine, model",
        ),
        ("port = 9000", "port = ", "file.toml:2: Invalid value"),
        ("[[device]]", "[device]", "file.toml:5: device"),
    ],
)
def test_errors_name_file_line_and_key(old: str, new: str, expected: str) -> None:
    assert old in GOOD
    said = problems(GOOD.replace(old, new, 1))
    assert any(line.startswith(expected) for line in said), said


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
    page = (Path(__file__).parent.parent / "docs" / "configuration.md").read_text()
    begin, end = "<!-- generated: python -m paceline.configuration -->\n", "<!-- end of generated -->"
    assert page.partition(begin)[2].partition(end)[0].strip() == reference().strip()


def test_the_example_in_the_docs_is_valid() -> None:
    page = (Path(__file__).parent.parent / "docs" / "configuration.md").read_text()
    parse(page.partition("```toml\n")[2].partition("```")[0])
