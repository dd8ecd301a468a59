"""What a reload has changed, for whoever asked for it."""

from typing import Any

from paceline.serving.fleet import Fleet
from paceline.settings import Configuration

FIXED = ("host", "port")
"""Keys of ``[server]`` that are read at the start alone."""


def changes(old: Configuration, new: Configuration, fleet: Fleet) -> dict[str, Any]:
    """Names of engines and of keys, in lists.

    Args:
        fleet: that of the new configuration.
    """
    started = [supervisor.name for supervisor in fleet.added]
    needs_restart = [f"server.{key}" for key in FIXED if getattr(old.server, key) != getattr(new.server, key)]
    if old.evidence != new.evidence:
        needs_restart.append("evidence")
    return {
        "started": started,
        "stopped": [handle.name for handle in fleet.retired],
        "unchanged": [name for name in fleet.engines if name not in started],
        "changed": [name for name in _changed_keys(old, new) if name not in needs_restart],
        "needs_restart": needs_restart,
    }


def _changed_keys(old: Configuration, new: Configuration) -> list[str]:
    """What differs beside the engines, in a few words each."""
    changed: list[str] = []
    for table in Configuration.__struct_fields__:
        before, now = getattr(old, table), getattr(new, table)
        if before == now or table in ("engine", "evidence"):
            continue
        if isinstance(now, tuple):
            changed.append(f"{len(now)} {table}{'' if len(now) == 1 else 's'}")
        else:
            keys = now.__struct_fields__
            changed += [f"{table}.{key}" for key in keys if getattr(before, key) != getattr(now, key)]
    return changed
