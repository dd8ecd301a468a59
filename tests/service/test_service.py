"""Paceline as a service: the files for systemd and launchd, the commands that are run, and what a service tells."""

import getpass
import json
import os
import plistlib
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.answering import answering
from tests.patient import PATIENCE_S

from paceline.cli import main
from paceline.processes.launch import free_port
from paceline.service.description import LABEL, Service
from paceline.service.launchd import plist_text
from paceline.service.manager import Launchd, Manager, ServiceError, Status, Systemd, _give_folder, install, uninstall
from paceline.service.systemd import quoted, unit_text, unquoted
from paceline.settings import ServerSettings

ENGINE = '[[engine]]\nname = "a"\nkind = "openai"\nurl = "http://127.0.0.1:9"\n'


def service(file: Path, is_system: bool = False) -> Service:
    server = ServerSettings(drain_s=5.0, shutdown_grace_s=120)
    return Service(file=file, server=server, is_system=is_system, run_as=getpass.getuser() if is_system else None)


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    file = tmp_path / "a folder" / "50%.toml"
    file.parent.mkdir()
    file.write_text(ENGINE)
    return file


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("is_system", [False, True])
def test_systemd_finds_nothing_wrong_with_the_unit(configuration: Path, tmp_path: Path, is_system: bool) -> None:
    unit = tmp_path / "paceline.service"
    unit.write_text(unit_text(service(configuration, is_system)))
    whose = [] if is_system else ["--user"]
    done = subprocess.run(
        ["systemd-analyze", *whose, "verify", unit],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)},
    )
    ours = [line for line in done.stderr.splitlines() if "paceline" in line]
    assert not ours, done.stderr


def test_a_stop_has_the_time_that_draining_takes(configuration: Path) -> None:
    assert "\nTimeoutStopSec=155\n" in unit_text(service(configuration))
    document = plistlib.loads(plist_text(service(configuration), Path("/Users/x")).encode())
    assert document["ExitTimeOut"] == 155


def test_the_command_survives_systemds_quoting() -> None:
    words = ["/a b/python", 'say "hi"', "50%", "$HOME", "back\\slash", ""]
    assert quoted(words) == '"/a b/python" "say \\"hi\\"" 50%% $$HOME "back\\\\slash" ""'
    assert unquoted(quoted(words)) == words


def test_the_property_list_is_one(configuration: Path) -> None:
    document = plistlib.loads(plist_text(service(configuration), Path("/Users/x")).encode())
    assert document["Label"] == LABEL
    assert document["ProgramArguments"][:6] == [
        sys.executable,
        "-m",
        "paceline",
        "serve",
        "--config",
        str(configuration),
    ]
    assert document["ProgramArguments"][-1] == "/Users/x/Library/Logs/paceline.log"
    assert document["KeepAlive"] == {"SuccessfulExit": False}


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In place of systemctl and launchctl, a program that notes how it was called, and answers as they do."""
    notes = tmp_path / "called"
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("systemctl", "launchctl"):
        program = programs / name
        program.write_text(
            f"""#!/bin/sh
echo "{name} $*" >> {notes}
case "$*" in
  *fail-me*|"print gui"*) exit 1;;
  *show*) printf 'ActiveState=active\\nSubState=running\\nMainPID=4711\\nNRestarts=2\\nLoadState=loaded\\n';;
esac
"""
        )
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return notes


def test_install_status_and_uninstall(
    configuration: Path, commands: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unit = tmp_path / "config" / "systemd" / "user" / "paceline.service"
    assert main(["service", "status"]) == 0  # the program says so; there is no file yet
    assert "not installed" in capsys.readouterr().out
    assert main(["service", "uninstall"]) == 1
    assert "not installed" in capsys.readouterr().err
    assert main(["service", "install", "--config", str(configuration)]) == 0
    said = capsys.readouterr()
    assert str(unit) in said.out
    assert "loginctl enable-linger" in said.err
    assert unit.read_text() == unit_text(Service(file=configuration, server=ServerSettings()))
    assert main(["service", "status", "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert (status["is_running"], status["pid"], status["restarts"]) == (True, 4711, 2)
    assert main(["service", "uninstall"]) == 0
    assert not unit.exists()
    called = [line for line in commands.read_text().splitlines() if "show" not in line]
    assert called == [
        "systemctl --user daemon-reload",
        "systemctl --user enable paceline.service",
        "systemctl --user restart paceline.service",
        "systemctl --user disable --now paceline.service",
        "systemctl --user daemon-reload",
    ]


def test_a_unit_that_something_else_wrote_stays(
    configuration: Path, commands: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unit, other = tmp_path / "config" / "systemd" / "user" / "paceline.service", tmp_path / "other"
    words = ["service", "install", "--config", str(configuration)]
    unit.parent.mkdir(parents=True)
    unit.write_text("[Unit]\n")
    assert main(words) == 1
    assert "--force replaces it" in capsys.readouterr().err
    assert main(["service", "uninstall"]) == 1
    assert "stays as it is" in capsys.readouterr().err
    assert unit.read_text() == "[Unit]\n"
    assert not commands.exists()
    assert main([*words, "--force"]) == 0
    ours = unit.read_text()
    assert main(words) == 0  # renewed
    unit.rename(other)
    unit.symlink_to(other)
    assert main(words) == 1
    other.write_text("theirs")
    assert main([*words, "--force"]) == 0
    assert (unit.read_text(), unit.is_symlink(), other.read_text()) == (ours, False, "theirs")
    assert list(unit.parent.iterdir()) == [unit]


@pytest.mark.usefixtures("commands")
def test_launchd_has_a_folder_for_its_log_and_no_file_of_variables(
    configuration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paceline.service.launchd.SYSTEM_LOGS", tmp_path / "Logs")
    given: list[tuple[Path, str]] = []
    monkeypatch.setattr("paceline.service.manager.shutil.chown", lambda *whom: given.append(whom))
    own = service(configuration, is_system=True)
    Launchd().start(own)
    assert given == [(tmp_path / "Logs" / "paceline", getpass.getuser())]
    assert given[0][0].is_dir()
    monkeypatch.undo()
    hints = "\n".join(Launchd().hints(own, {"OPENAI_API_KEY"}))
    assert "file:PATH for env:OPENAI_API_KEY" in hints
    assert ".env" not in hints
    assert "50%.env" in "\n".join(Systemd().hints(own, {"OPENAI_API_KEY"}))
    with pytest.raises(ServiceError, match="no user nobody-here"):
        _give_folder(tmp_path, "nobody-here")


@pytest.mark.usefixtures("commands")
@pytest.mark.parametrize(("manager", "waiting"), [(Systemd(), {"restart", "disable"}), (Launchd(), {"bootout"})])
def test_a_stop_may_take_as_long_as_draining(
    manager: Manager, waiting: set[str], configuration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlimited = set()
    run = subprocess.run

    def noted(command: list[str], *, timeout: float | None, **more: Any) -> subprocess.CompletedProcess[str]:
        if timeout is None:
            unlimited.update(command)
        return run(command, timeout=timeout, **more)

    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr("paceline.service.manager.subprocess.run", noted)
    install(manager, service(configuration))
    uninstall(manager, service(configuration))
    assert unlimited & {"daemon-reload", "enable", "restart", "disable", "bootstrap", "bootout"} == waiting


def test_launchd_is_told(configuration: Path, commands: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    manager, own = Launchd(), service(configuration)
    path = install(manager, own)
    assert path == tmp_path / "home" / "Library" / "LaunchAgents" / f"{LABEL}.plist"
    assert not manager.status(own).is_running
    assert isinstance(manager.status(own), Status)
    uninstall(manager, own)
    called = [line for line in commands.read_text().splitlines() if "print" not in line]
    domain = f"gui/{os.getuid()}"
    assert called == [f"launchctl bootstrap {domain} {path}", f"launchctl bootout {domain}/{LABEL}"]


def test_what_keeps_it_from_being_installed(
    configuration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    words = ["service", "install", "--config", str(configuration)]
    assert main(words) == 1
    assert "neither systemd nor launchd" in capsys.readouterr().err
    assert main([*words[:-1], "nowhere.toml"]) == 1
    assert "nowhere.toml" in capsys.readouterr().err
    assert main([*words, "--run-as", "paceline"]) == 1
    assert "--system" in capsys.readouterr().err
    monkeypatch.setattr("getpass.getuser", lambda: "root")
    monkeypatch.delenv("SUDO_USER", raising=False)
    assert main([*words, "--system"]) == 1
    assert "--run-as USER is wanted" in capsys.readouterr().err
    assert main([*words, "--print"]) == 0
    assert "[Service]" in capsys.readouterr().out
    assert main([*words, "--print", "--for", "launchd"]) == 0
    assert LABEL in capsys.readouterr().out


def test_what_systemd_says_is_said(configuration: Path, commands: Path, tmp_path: Path) -> None:
    (tmp_path / "bin" / "systemctl").write_text("#!/bin/sh\necho 'Failed to connect to bus' >&2; exit 1\n")
    with pytest.raises(ServiceError, match=r"systemctl --user show.*Failed to connect to bus\. .*log in as"):
        install(Systemd(), service(configuration))
    assert not Systemd().path(service(configuration)).exists()


@pytest.mark.slow
def test_a_gateway_tells_when_it_is_ready_and_keeps_its_log_in_a_file(tmp_path: Path) -> None:
    """As systemd starts and stops it, with launchd's log file."""
    port, log = free_port(), tmp_path / "logs" / "paceline.log"
    with (
        answering({"/v1/models": {"data": [{"id": "m"}]}}) as url,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told,
    ):
        told.bind(str(tmp_path / "notify"))
        told.settimeout(PATIENCE_S)
        file = tmp_path / "paceline.toml"
        file.write_text(f"[server]\nport = {port}\ndrain_s = 0\n" + ENGINE.replace("http://127.0.0.1:9", url))
        process = subprocess.Popen(
            [sys.executable, "-m", "paceline", "serve", "--config", str(file), "--log-file", str(log)],
            env=os.environ | {"NOTIFY_SOCKET": str(tmp_path / "notify"), "XDG_STATE_HOME": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert told.recv(100) == b"READY=1"
        with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as client:
            client.sendall(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            assert b" 200 " in client.recv(1000)
        until_s = time.monotonic() + PATIENCE_S
        while "serving" not in log.read_text() and time.monotonic() < until_s:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert out == b""
    said = log.read_text()
    assert "serving" in said
    assert said.rstrip().endswith("stopped")
    assert log.stat().st_mode & 0o077 == 0
