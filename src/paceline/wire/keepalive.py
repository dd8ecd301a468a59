"""Has the kernel notice a peer that vanished without a word."""

import contextlib
import socket
from typing import Any

IDLE_S = 60
"""Of silence before the first probe."""
INTERVAL_S = 15
"""Between two probes."""
MAX_UNANSWERED = 4
"""Probes: a peer that vanished is noticed after two minutes."""
_OPTIONS = {
    "TCP_KEEPIDLE": IDLE_S,
    "TCP_KEEPALIVE": IDLE_S,  # macOS's name for it
    "TCP_KEEPINTVL": INTERVAL_S,
    "TCP_KEEPCNT": MAX_UNANSWERED,
}


def keep_alive(connected: Any) -> None:
    """Set the options of a socket; of one that is not TCP's none."""
    with contextlib.suppress(OSError, AttributeError):
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _OPTIONS.items():
        set_tcp(connected, name, value)


def set_tcp(connected: Any, name: str, value: int) -> None:
    """Set an option of TCP, where this system has it."""
    with contextlib.suppress(OSError, AttributeError):
        if (option := getattr(socket, name, None)) is not None:
            connected.setsockopt(socket.IPPROTO_TCP, option, value)
