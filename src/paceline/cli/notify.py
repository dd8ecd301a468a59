"""Telling systemd how a service is, by the protocol of sd_notify(3)."""

import os
import socket

VARIABLE = "NOTIFY_SOCKET"
READY = "READY=1"
"""Requests are accepted."""


def notify(state: str) -> None:
    """Tell it to whoever started this process, if that wants to know. What can't be told is not worth failing for."""
    address = os.environ.get(VARIABLE, "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):  # in Linux' namespace of its own for them
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
            out.sendto(state.encode(), address)
    except OSError:
        return
