"""The property list for launchd. What each key means stands in launchd.plist(5)."""

import plistlib
from pathlib import Path
from xml.parsers.expat import ExpatError

from paceline.service.description import LABEL, NAME, OPEN_FILES, WRITTEN_BY, Service, Start, start_of

SYSTEM_LOGS = Path("/Library/Logs")


def plist_path(service: Service, home: Path) -> Path:
    """Where it belongs."""
    folder = Path("/Library/LaunchDaemons") if service.is_system else home / "Library" / "LaunchAgents"
    return folder / f"{LABEL}.plist"


def log_path(service: Service, home: Path) -> Path:
    """What it prints; Paceline keeps it small itself, since launchd does not. That of the whole machine has a folder of
    its own, which has to be its user's."""
    return (SYSTEM_LOGS / NAME if service.is_system else home / "Library" / "Logs") / "paceline.log"


def plist_text(service: Service, home: Path) -> str:
    """The whole file."""
    document = {
        "Label": LABEL,
        "ProgramArguments": [*service.command, "--log-file", str(log_path(service, home))],
        "WorkingDirectory": str(service.file.parent),
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 5,
        "ExitTimeOut": service.stop_timeout_s,
        "ProcessType": "Interactive",  # else its threads are slowed down
        "Umask": 0o077,
        "SoftResourceLimits": {"NumberOfFiles": OPEN_FILES},
        "HardResourceLimits": {"NumberOfFiles": OPEN_FILES},
    }
    if service.is_system and service.run_as:
        document["UserName"] = service.run_as
    return plistlib.dumps(document, sort_keys=False).decode().replace("<plist", f"<!-- {WRITTEN_BY} -->\n<plist", 1)


def start_in(text: str) -> Start | None:
    """What a property list of ours starts; ``None`` where that can't be told."""
    try:
        document = plistlib.loads(text.encode())
        return start_of(document["ProgramArguments"], document.get("UserName"))
    except (plistlib.InvalidFileException, ExpatError, LookupError, TypeError, AttributeError, ValueError):
        return None
