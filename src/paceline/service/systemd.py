"""The unit for systemd. What each line means stands in systemd.service(5), systemd.exec(5) and systemd.kill(5)."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from paceline.service.description import NAME, OPEN_FILES, WRITTEN_BY, Service, Start, start_of

UNIT = f"{NAME}.service"


def unit_path(service: Service, config_home: Path) -> Path:
    """Where it belongs.

    Args:
        config_home: the user's folder of configurations, ``~/.config``.
    """
    return Path("/etc/systemd/system") / UNIT if service.is_system else config_home / "systemd" / "user" / UNIT


def unit_text(service: Service) -> str:
    """The whole file."""
    whose = _of_system(service) if service.is_system else ""
    target = "multi-user.target" if service.is_system else "default.target"
    network = "After=network-online.target\nWants=network-online.target\n" if service.is_system else ""
    return f"""\
# {WRITTEN_BY}, which overwrites it; changes of yours belong into `systemctl edit {NAME}`.
[Unit]
Description=Paceline, a gateway in front of LLM engines
{network}StartLimitIntervalSec=300
StartLimitBurst=5

[Service]
# It tells when it accepts requests, so that what starts after it finds it ready.
Type=notify
NotifyAccess=main
ExecStart={quoted(service.command)}
ExecReload=/bin/kill -HUP $MAINPID
WorkingDirectory={_escaped(str(service.file.parent))}
# Variables with keys, one NAME=VALUE a line; readable for the owner alone.
EnvironmentFile=-{_escaped(str(service.environment_file))}
# At a stop it drains: /readyz says 503, running answers end, then engines are stopped.
KillMode=mixed
TimeoutStopSec={service.stop_timeout_s}
Restart=on-failure
RestartSec=2
# A wrong command line does not get right by trying again.
RestartPreventExitStatus=2
LimitNOFILE={OPEN_FILES}
UMask=0077
NoNewPrivileges=yes
{whose}
[Install]
WantedBy={target}
"""


def start_in(text: str) -> Start | None:
    """What a unit of ours starts; ``None`` where that can't be told."""
    values = dict(line.partition("=")[::2] for line in text.splitlines())
    try:
        command = unquoted(values.get("ExecStart", ""))
    except ValueError:
        return None
    return start_of(command, values.get("User"))


def _of_system(service: Service) -> str:
    """For a service of the whole machine: its user, its folders, and what it may not touch."""
    return f"""\
User={service.run_as}
StateDirectory={NAME}
StateDirectoryMode=0700
CacheDirectory={NAME}
Environment=XDG_STATE_HOME=/var/lib XDG_CACHE_HOME=/var/cache
ProtectSystem=full
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
RestrictSUIDSGID=yes
"""


def quoted(words: Sequence[str]) -> str:
    """A command as systemd splits it, with nothing expanded."""
    return " ".join(_quoted(word) for word in words)


def unquoted(text: str) -> list[str]:
    """The words of what :func:`quoted` has written.

    Raises:
        ValueError: a quotation mark is not closed.
    """
    return [word.replace("%%", "%").replace("$$", "$") for word in shlex.split(text)]


def _quoted(word: str) -> str:
    text = word.replace("%", "%%").replace("$", "$$")
    if not text or any(character in text for character in " \t\"'\\;"):
        text = text.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{text}"'
    return text


def _escaped(path: str) -> str:
    """A path where systemd splits nothing, but expands its own signs."""
    return path.replace("%", "%%")
