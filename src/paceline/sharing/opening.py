"""A store by its address."""

import re
from pathlib import Path

from paceline.sharing.folder_store import FolderStore
from paceline.sharing.stores import NAME, CannotOpen, Store


def open_store(address: str, group: str = "paceline") -> Store:
    """A store by its address; nothing is asked of it yet.

    Args:
        address: ``redis://``, ``rediss://`` or ``unix://`` of a Redis or Valkey; ``folder:`` and a path, or a path.
        group: of routers that learn together; those of others may have the same store.

    Raises:
        CannotOpen: there is no such kind of store, or what speaks to it is not installed.
    """
    if not NAME.fullmatch(group):
        raise CannotOpen(f"a group is called by letters, digits, - and _, 64 at most, and not {group!r}")
    kind, colon, _ = address.partition(":")
    if colon and kind in ("redis", "rediss", "unix"):
        from paceline.sharing.redis_store import RedisStore  # whose package is optional

        return RedisStore(address, group)
    path = address.removeprefix("folder:")
    if not path or re.match(r"[a-z][a-z0-9+.-]*://", path):
        raise CannotOpen(
            f"{address!r} is no store; one is redis://host:6379/0, rediss://…, unix:///path/to/socket, or the path of "
            "a folder"
        )
    return FolderStore(Path(path).expanduser(), group)
