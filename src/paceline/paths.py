"""Where Paceline keeps its files, and what they are called.

Folders follow the XDG base directory specification (https://specifications.freedesktop.org/basedir-spec/latest/).
"""

import os
from pathlib import Path

DECISION_LOG = "requests.sqlite"
"""In the state directory: what is kept of each request."""
KNOWLEDGE = "learned.sqlite"
"""In the state directory: what was learned."""
LEDGER = "spent.sqlite"
"""In the state directory: what was spent on cloud engines."""
ENGINE_LOGS = "log"
"""In the state directory: the folder with what each launched engine printed, ``NAME.log``."""


def cache_directory() -> Path:
    """For what can be made again: built engines, and the bundled model."""
    return _user_directory("XDG_CACHE_HOME", ".cache")


def state_directory() -> Path:
    """For what a gateway keeps over its restarts."""
    return _user_directory("XDG_STATE_HOME", ".local/state")


def log_directory() -> Path:
    """For what launched engines print."""
    return state_directory() / ENGINE_LOGS


def _user_directory(variable: str, fallback: str) -> Path:
    """Paceline's folder below one of the base directories. The specification has relative paths ignored: they would
    be others in each folder."""
    given = Path(os.environ.get(variable, ""))
    return (given if given.is_absolute() else _home() / fallback) / "paceline"


def _home() -> Path:
    """The user's home; for one who has none, as in a container, the root, which is what container engines say of
    it."""
    try:
        return Path.home()
    except RuntimeError:
        return Path("/")
