"""Faults are planted, one at a time, into an installation that is fine; each has to be found, with what mends it."""

import json
import os
import re
import resource
import socket
import sqlite3
import struct
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.answering import answering
from tests.model_files import ARRAY, F32, STRING, UINT32, model_file, pair, small_model, strings, text

from paceline.cli import main
from paceline.doctor import examine as examining
from paceline.doctor.examine import examine
from paceline.doctor.files import folders_can_be_used
from paceline.doctor.scene import Scene
from paceline.doctor.service import service_is_current
from paceline.planning.devices import Device, Machine
from paceline.planning.gguf import Tensor
from paceline.processes.launch import free_port
from paceline.records.decision_log import FORMAT
from paceline.service.description import Service
from paceline.service.manager import Launchd
from paceline.service.systemd import unit_text
from paceline.settings import ServerSettings

MODELS = {"object": "list", "data": [{"id": "m", "object": "model", "owned_by": "llamacpp"}]}
LISTED = {"/v1/models": MODELS, "/health": {"status": "ok"}, "/props": {"total_slots": 1}}


class Home:
    """An installation of its own: a configuration with one engine that runs, and folders."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.monkeypatch = monkeypatch
        self.file = folder / "paceline.toml"
        self.port = free_port()
        self.server = f"port = {self.port}\n"
        self.rest = ""
        self.engine = ""
        for name in ("state", "cache", "config"):
            monkeypatch.setenv(f"XDG_{name.upper()}_HOME", str(folder / name))
        self.state = folder / "state" / "paceline"
        self.state.mkdir(parents=True, mode=0o700)
        for name in ("PACELINE_API_KEY", "OPENAI_API_KEY"):
            monkeypatch.delenv(name, raising=False)

    def write(self) -> None:
        if self.engine:
            self.file.write_text(f'[server]\n{self.server}\n{self.rest}\n[[engine]]\nname = "a"\n{self.engine}')

    def launches(self, *words: str, kind: str = "llama.cpp", more: str = "") -> None:
        command = json.dumps([sys.executable, "--port", "{port}", *words])
        self.engine = f'kind = "{kind}"\nlaunch = {command}\n{more}'

    def installs(self, change: Callable[[str], str] = str, **given: Any) -> None:
        """A unit of one's own, as it was written once, on a machine with systemd."""
        program = self.folder / "bin" / "systemctl"
        program.parent.mkdir()
        program.touch(0o755)
        self.monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        unit = self.folder / "config" / "systemd" / "user" / "paceline.service"
        unit.parent.mkdir(parents=True)
        fields: dict[str, Any] = {"file": self.file, "server": ServerSettings()} | given
        unit.write_text(change(unit_text(Service(**fields))))

    def findings(self, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
        """The exit status, and what is found by its kind."""
        self.write()
        status = main(["doctor", "--config", str(self.file), "--json"])
        document = json.loads(capsys.readouterr().out)
        return status, {finding["kind"]: finding for finding in document["findings"] if finding["severity"] != "fine"}


@pytest.fixture
def engine() -> Iterator[str]:
    with answering(LISTED) as url:
        yield url


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str) -> Home:
    home = Home(tmp_path, monkeypatch)
    home.engine = f'kind = "llama.cpp"\nurl = "{engine}"\n'
    return home


def test_nothing_is_found_where_nothing_is_wrong(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = home.findings(capsys)
    assert status == 0
    assert not [kind for kind, finding in found.items() if finding["severity"] in ("fault", "warning")]


Plant = Callable[[Home], None]


def edited(**keys: str) -> Plant:
    def plant(home: Home) -> None:
        for name, value in keys.items():
            setattr(home, name, getattr(home, name) + value)

    return plant


def unset_variable(home: Home) -> None:
    home.engine += 'api_key = "env:NO_SUCH_KEY"\n'


def no_file(home: Home) -> None:
    home.engine = ""


def engine_is_gone(home: Home) -> None:
    home.engine = f'kind = "llama.cpp"\nurl = "http://127.0.0.1:{free_port()}"\n'


def no_program(home: Home) -> None:
    home.launches("-m", str(small_model(home.folder / "m.gguf")))
    home.engine = home.engine.replace(sys.executable, "/nowhere/llama-server")


def program_is_not_executable(home: Home) -> None:
    program = home.folder / "llama-server"
    program.write_text("#!/bin/sh\n")
    home.launches("-m", str(small_model(home.folder / "m.gguf")))
    home.engine = home.engine.replace(sys.executable, str(program))


def no_model(home: Home) -> None:
    home.launches("-m", str(home.folder / "nowhere.gguf"))


def cut_model(home: Home) -> None:
    model = small_model(home.folder / "m.gguf")
    model.write_bytes(model.read_bytes()[:-100])
    home.launches("-m", str(model))


def huge_model(home: Home) -> None:
    """Sparse: its tensors are there, and take no room on the disk."""
    rows = 1 << 38
    pairs = (
        pair("general.architecture", STRING, text("llama")),
        pair("llama.block_count", UINT32, struct.pack("<I", 1)),
    )
    model = model_file(home.folder / "m.gguf", pairs, [Tensor("output.weight", (4, rows), F32, 0)])
    os.truncate(model, model.stat().st_size + 16 * rows)
    home.launches("-m", str(model))


def other_familys_drafter(home: Home) -> None:
    model = small_model(home.folder / "m.gguf")
    other = (
        pair("general.architecture", STRING, text("llama")),
        pair("tokenizer.ggml.model", STRING, text("llama")),
        strings("tokenizer.ggml.tokens", ["x"]),
        pair("tokenizer.ggml.scores", ARRAY, struct.pack("<IQf", 6, 1, 1.0)),
    )
    draft = model_file(home.folder / "d.gguf", other, [Tensor("output.weight", (4, 4), F32, 0)], bytes(64))
    home.launches("-m", str(model), "-md", str(draft), "--spec-type", "draft-simple", more='strategy = "draft"\n')


def stripped_model(home: Home) -> None:
    home.launches("-m", str(small_model(home.folder / "m.gguf")), "--spec-type", "draft-mtp", more='strategy = "mtp"\n')


def no_drafter(home: Home) -> None:
    home.launches("-m", str(small_model(home.folder / "m.gguf")), more='strategy = "ngram"\n')


def too_many_threads(home: Home) -> None:
    home.launches("-m", str(small_model(home.folder / "m.gguf")), "--threads", "512")


def too_long_context(home: Home) -> None:
    home.launches("-m", str(small_model(home.folder / "m.gguf")), "--ctx-size", "65536", "--parallel", "2")


def readable_key(home: Home) -> None:
    home.server += 'api_keys = ["a-key-of-mine"]\n'
    home.file.touch(0o644)


def file_in_the_way(home: Home) -> None:
    home.state.rmdir()
    home.state.touch()


def damaged_log(home: Home) -> None:
    (home.state / "requests.sqlite").write_bytes(b"SQLite format 3\0" + b"garbage" * 999)


def log_that_can_not_be_opened(home: Home) -> None:
    home.monkeypatch.chdir(home.state)  # since the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as odd:
        odd.bind("requests.sqlite")


def odd_folder(home: Home) -> None:
    """What an address has another meaning for, and what a shell has."""
    home.monkeypatch.setenv("XDG_STATE_HOME", str(home.folder / "a %41 b?#"))
    home.state = home.folder / "a %41 b?#" / "paceline"
    home.state.mkdir(parents=True, mode=0o700)
    log_of_the_future(home)
    (home.state / "ledger.sqlite.damaged").touch()


def log_of_the_future(home: Home) -> None:
    with closing(sqlite3.connect(home.state / "requests.sqlite")) as connection, connection:
        connection.execute(f"PRAGMA user_version = {FORMAT}")
        connection.execute("CREATE TABLE entries (number INTEGER PRIMARY KEY, at_s REAL, entry TEXT)")
        connection.execute("INSERT INTO entries (at_s, entry) VALUES (?, '{}')", (time.time() + 86_400,))


def clock_before_it_was_made(home: Home) -> None:
    home.monkeypatch.setattr("paceline.doctor.host.time.time", lambda: 86_400.0)


def full_disk(home: Home) -> None:
    usage = type("Usage", (), {"free": 1_000_000})
    home.monkeypatch.setattr("paceline.doctor.files.shutil.disk_usage", lambda _: usage)


def relative_folder(home: Home) -> None:
    home.monkeypatch.setenv("XDG_CACHE_HOME", "cache")


def empty_key_variable(home: Home) -> None:
    home.monkeypatch.setenv("PACELINE_API_KEY", " ")


def old_build(home: Home) -> None:
    folder = home.folder / "cache" / "paceline" / "engines" / "llama.cpp-b1-cpu-0000000000"
    folder.mkdir(parents=True)
    (folder / "llama-server").touch(0o755)
    built = {"key": folder.name, "server": str(folder / "llama-server"), "backend": "cpu", "llama_cpp": "b1"}
    (folder / "build.json").write_text(json.dumps(built | {"built_at_s": 1.0}))


def service_of_other_settings(home: Home) -> None:
    home.installs()
    home.server += "shutdown_grace_s = 600\n"


def service_of_an_older_version(home: Home) -> None:
    home.installs(lambda text: text.replace("UMask=0077\n", ""))


def service_with_a_command_of_its_own(home: Home) -> None:
    home.installs(lambda text: text.replace("--config", "--model"))


def service_without_its_python(home: Home) -> None:
    home.installs(python=str(home.folder / "bin" / "python"))


def service_without_its_configuration(home: Home) -> None:
    home.installs(file=home.folder / "gone.toml")


def service_of_another_environment(home: Home) -> None:
    python = home.folder / "python"
    python.touch()
    home.installs(python=str(python))


def service_of_a_bad_configuration(home: Home) -> None:
    home.installs()
    home.server += "prot = 1\n"


INSTALL = "paceline service install --config {file}"
FAULTS: list[tuple[str, Plant, str, str]] = [
    ("bad-configuration", edited(server="prot = 1\n"), "fault", "edit {file}:3"),
    ("no-configuration-file", no_file, "fault", "paceline init --write {file}"),
    ("variable-not-set", unset_variable, "fault", "export NO_SUCH_KEY="),
    ("open-without-key", edited(server='host = "0.0.0.0"\n'), "fault", "server.api_keys"),
    ("open-without-key", edited(server='host = "0.0.0.0"\ninsecure = true\n'), "warning", "server.api_keys"),
    ("address-not-ours", edited(server='host = "192.0.2.1"\n'), "fault", "127.0.0.1"),
    ("engine-not-there", engine_is_gone, "fault", "start the engine"),
    ("no-program", no_program, "fault", "paceline engine build"),
    ("program-not-executable", program_is_not_executable, "fault", "chmod +x"),
    ("no-model-file", no_model, "fault", "correct the model's path in {file}:"),
    ("model-cut-short", cut_model, "fault", "download"),
    ("memory-too-small", huge_model, "fault", "--write {planned} finds what fits"),
    ("drafter-does-not-fit", other_familys_drafter, "fault", "same family"),
    ("no-mtp-layers", stripped_model, "fault", "take draft-mtp out"),
    (
        "no-drafter-started",
        no_drafter,
        "warning",
        "paceline plan MODEL --write {planned}, and",
    ),
    ("too-many-threads", too_many_threads, "warning", "--threads"),
    ("context-beyond-model", too_long_context, "warning", "--ctx-size 16384"),
    ("secret-readable", readable_key, "warning", "chmod 600 {file}"),
    ("not-a-folder", file_in_the_way, "fault", "mv {state} {state}.old"),
    ("file-damaged", damaged_log, "fault", "mv {state}/requests.sqlite"),
    ("file-not-readable", log_that_can_not_be_opened, "fault", "ls -ld {state}/requests.sqlite"),
    ("clock-behind", odd_folder, "warning", "timedatectl"),
    ("files-set-aside", odd_folder, "note", "rm '{state}/ledger.sqlite.damaged'"),
    ("clock-behind", log_of_the_future, "warning", "timedatectl"),
    ("clock-wrong", clock_before_it_was_made, "fault", "timedatectl"),
    ("disk-full", full_disk, "fault", "free some space"),
    ("variable-ignored", relative_folder, "warning", "export XDG_CACHE_HOME=$HOME/cache"),
    ("bad-key-variable", empty_key_variable, "warning", "PACELINE_API_KEY"),
    ("old-build", old_build, "warning", "paceline engine build --backend cpu"),
    ("service-outdated", service_of_other_settings, "fault", INSTALL),
    ("service-outdated", service_of_an_older_version, "fault", INSTALL),
    ("service-outdated", service_with_a_command_of_its_own, "fault", "paceline service install --config FILE"),
    ("service-can-not-start", service_without_its_python, "fault", INSTALL),
    ("service-can-not-start", service_without_its_configuration, "fault", "paceline service install --config FILE"),
    ("service-elsewhere", service_of_another_environment, "note", INSTALL),
    ("service-not-compared", service_of_a_bad_configuration, "note", "paceline check --config {file}"),
]


@pytest.mark.parametrize(("kind", "plant", "severity", "mend"), FAULTS, ids=[f"{one[0]}-{one[2]}" for one in FAULTS])
def test_a_planted_fault_is_found_with_its_mend(
    kind: str, plant: Plant, severity: str, mend: str, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(home)
    status, found = home.findings(capsys)
    assert kind in found, found
    assert found[kind]["severity"] == severity
    planned = home.folder / "paceline.planned.toml"
    assert mend.format(file=home.file, state=home.state, planned=planned) in found[kind]["mend"]
    assert (status == 1) == any(finding["severity"] == "fault" for finding in found.values())
    if severity == "fault":
        assert status == 1


def test_a_service_that_is_as_it_would_be_written_now(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    """Which changes with what differs, and only for files of ours."""
    home.file = home.folder / "a 50% $x" / "paceline.toml"
    home.file.parent.mkdir()
    home.installs()
    unit = home.folder / "config" / "systemd" / "user" / "paceline.service"
    _, found = home.findings(capsys)
    assert not [kind for kind in found if kind.startswith("service")]
    ours = unit.read_text()
    unit.write_text(ours.replace("RestartSec=2", "RestartSec=9"))
    _, found = home.findings(capsys)
    assert "it has `RestartSec=9`, and `RestartSec=2` is missing" in found["service-outdated"]["message"]
    unit.write_text("[Service]\nExecStart=/usr/bin/true\n")
    _, found = home.findings(capsys)
    assert not [kind for kind in found if kind.startswith("service")]


@pytest.mark.parametrize("is_system", [False, True])
def test_a_service_of_launchd(home: Home, is_system: bool) -> None:
    home.write()
    home.monkeypatch.setenv("HOME", str(home.folder))
    manager = Launchd()
    home.monkeypatch.setattr(
        manager, "path", lambda service: home.folder / f"{'system' if service.is_system else 'own'}.plist"
    )
    home.monkeypatch.setattr("paceline.doctor.service.manager_here", lambda: manager)
    scene = Scene(file=home.file, state=home.state, cache=home.folder / "cache", environment={})
    ours = Service(
        file=home.file, server=ServerSettings(), is_system=is_system, run_as="somebody" if is_system else None
    )
    file, text = manager.path(ours), manager.text(ours)
    file.write_text(text)
    assert [finding.kind for finding in service_is_current(scene)] == ["fine"]
    file.write_text(text.replace("<integer>5</integer>", "<integer>7</integer>"))
    (finding,) = service_is_current(scene)
    assert finding.kind == "service-outdated"
    command = f"paceline service install --config {home.file}"
    assert finding.mend == (f"sudo {command} --system --run-as somebody" if is_system else command)
    file.write_text(text[: len(text) // 2])
    assert [finding.kind for finding in service_is_current(scene)] == ["service-outdated"]


@pytest.mark.parametrize(
    ("kind", "documents", "status", "mend"),
    [
        ("engine-wants-key", LISTED, 401, "api_key"),
        ("engine-unlike", {"/v1/models": {"message": "hello"}}, 200, "correct the url"),
        ("engine-loading", LISTED, 503, "wait"),
        ("no-model-loaded", {**LISTED, "/v1/models": {"data": []}}, 200, "load a model"),
        ("engine-is-gateway", {**LISTED, "/health": {"status": "ok", "lanes": {"a": "up"}}}, 200, "behind it"),
        (
            "wrong-kind",
            {**LISTED, "/v1/models": {"data": [{"id": "m", "owned_by": "vllm"}]}},
            200,
            'write kind = "vllm"',
        ),
        (
            "short-context",
            {**LISTED, "/props": {"total_slots": 1, "default_generation_settings": {"n_ctx": 4096}}},
            200,
            "--ctx-size",
        ),
    ],
)
def test_what_an_engine_answers(
    kind: str, documents: Mapping[str, Any], status: int, mend: str, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(documents, status) as url:
        home.engine = f'kind = "llama.cpp"\nurl = "{url}"\n'
        _, found = home.findings(capsys)
    assert mend in found[kind]["mend"], found


def test_a_key_that_an_engine_quotes_is_not_reported(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    refused = {"/v1/models": {"error": {"message": "Incorrect API key provided: a-long-secret-key-4711"}}}
    with answering(refused, 401) as url:
        home.engine = f'kind = "openai"\nurl = "{url}"\napi_key = "a-long-secret-key-4711"\n'
        _, found = home.findings(capsys)
    assert "Incorrect API key provided" in found["engine-wants-key"]["message"]
    assert "4711" not in json.dumps(found)


def test_a_port_that_an_engine_has(home: Home, engine: str, capsys: pytest.CaptureFixture[str]) -> None:
    """llama.cpp and Paceline both listen on 8080 where nobody says otherwise."""
    home.server = f"port = {engine.rpartition(':')[2]}\n"
    with answering(LISTED) as other:
        home.engine = f'kind = "llama.cpp"\nurl = "{other}"\n'
        status, found = home.findings(capsys)
    assert status == 1
    assert "an engine of kind llama.cpp listens" in found["port-taken"]["message"]
    assert "--port" in found["port-taken"]["mend"]


def test_a_port_that_a_silent_program_has(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", home.port))
        taken.listen()
        _, found = home.findings(capsys)
    assert "a program listens" in found["port-taken"]["message"]


def test_few_files_may_be_open(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        _, found = home.findings(capsys)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "8292" in found["few-open-files"]["mend"]


def test_folders_of_another_user(home: Home) -> None:
    """As somebody else, since an administrator may write everywhere."""
    home.write()
    scene = Scene(file=home.file, state=home.state, cache=home.folder / "cache" / "paceline", environment={})
    home.state.chmod(0o500)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65_534)
    try:
        found = {finding.about: finding for finding in folders_can_be_used(scene)}
    finally:
        os.seteuid(user)
    for about, folder in (("state folder", home.state), ("cache folder", home.folder / "cache" / "paceline")):
        assert found[about].kind == "folder-not-writable"
        assert str(folder) in found[about].message
        assert f"$USER {folder}" in str(found[about].mend)


LANE: dict[str, Any] = {
    "lane": "a/mtp",
    "health": "up",
    "problem": None,
    "ejected": None,
    "engine": {"name": "a", "pid": None, "warnings": [], "restarts": 0},
    "faults": [],
}


@pytest.mark.parametrize(
    ("kind", "lane", "document"),
    [
        ("lane-down", {"health": "failed", "problem": "it ended at once"}, {}),
        ("engine-ejected", {"ejected": "five of the last ten answers failed"}, {}),
        ("drafts-not-accepted", {"faults": ["drafts by mtp are hardly ever accepted (3% of 400 tokens)"]}, {}),
        ("engine-restarts", {"engine": LANE["engine"] | {"restarts": 7}}, {}),
        ("engine-contradicts", {"engine": LANE["engine"] | {"warnings": ["it drafts by: nothing"]}}, {}),
        ("old-gateway", {}, {"version": "0.0.1"}),
        ("routing-failed", {}, {"routing_failures": {"inspection": 3}}),
        ("log-lost", {}, {"log": {"lost": 12}}),
    ],
)
def test_what_a_running_gateway_tells(
    kind: str, lane: Mapping[str, Any], document: Mapping[str, Any], home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    lanes = {"version": "0.1.0", "routing_failures": {}, "log": None, "lanes": [{**LANE, **lane}], **document}
    with answering({**LISTED, "/health": {"lanes": {"a/mtp": "up"}}, "/paceline/lanes": lanes}) as url:
        home.server = f"port = {url.rpartition(':')[2]}\n"
        _, found = home.findings(capsys)
    assert found[kind]["mend"]
    assert "port-taken" not in found


def test_for_people(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    home.write()
    assert main(["doctor", "--config", str(home.file)]) == 0
    capsys.readouterr()
    engine_is_gone(home)
    home.write()
    assert main(["doctor", "--config", str(home.file)]) == 1
    said = capsys.readouterr().out
    assert said.startswith("fault    engine a: ")
    assert "\n   mend   start the engine" in said
    assert "\x1b" not in said
    assert "\n1 fault" in said


async def test_a_look_that_fails_hides_nothing(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Scene) -> Iterator[Any]:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(examining, "LOOKS", (broken, *examining.LOOKS))
    home.write()
    scene = Scene(file=home.file, state=home.state, cache=home.folder / "cache", environment={})
    kinds = [finding.kind for finding in await examine(scene)]
    assert "look-failed" in kinds
    assert kinds.count("fine") > 5


async def test_cards_that_the_engine_does_not_use(home: Home) -> None:
    home.launches("-m", str(small_model(home.folder / "m.gguf")))
    home.engine = home.engine.replace(sys.executable, "embedded")
    home.write()
    scene = Scene(file=home.file, state=home.state, cache=home.folder / "cache", environment={})
    card = Device(name="NVIDIA GeForce RTX 5090", backend="cuda", memory_bytes=32 << 30, free_bytes=31 << 30)
    scene.__dict__["machine"] = Machine(devices=(card,), host_memory_bytes=16 << 30)
    kinds = {finding.kind: finding for finding in await examine(scene)}
    assert "--backend cuda" in str(kinds["embedded-ignores-cards"].mend)


def test_without_a_configuration_the_machine_is_looked_at(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(home.folder)
    assert main(["doctor", "--json"]) in (0, 1)
    kinds = [finding["kind"] for finding in json.loads(capsys.readouterr().out)["findings"]]
    assert "no-configuration" in kinds
    home.write()
    main(["doctor", "--json"])
    assert json.loads(capsys.readouterr().out)["configuration"] == "paceline.toml"


def test_the_page_of_trouble_has_every_kind_of_finding() -> None:
    root = Path(__file__).parents[2]
    code = "\n".join(file.read_text() for file in (root / "src" / "paceline" / "doctor").glob("*.py"))
    kinds = set(re.findall(r'\b(?:fault|warning|note)\(\s*"([a-z-]+)"', code))
    page = set(re.findall(r"`([a-z]+(?:-[a-z]+)*)`", (root / "docs" / "trouble-shooting.md").read_text()))
    assert len(kinds) > 40
    assert kinds <= page, kinds - page
    rows = re.findall(r"^\| (`.+?) \|", (root / "docs" / "trouble-shooting.md").read_text(), re.MULTILINE)
    assert {kind for row in rows for kind in re.findall(r"`([a-z-]+)`", row)} - {"kind"} <= kinds
