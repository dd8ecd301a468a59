"""What can be reached at a URL, and from where."""

import ipaddress
import re
from urllib.parse import urlsplit

LOOPBACK_NAME = "localhost"


def url_problem(url: str) -> str | None:
    """Why nothing can be reached at a URL; ``None`` if it may be."""
    if re.search(r"[\s\x00-\x1f\x7f]", url):
        return "has a space or a control character in it"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return f"is no URL: {error}"
    host = parts.hostname
    if not host:
        return "names no host; write it as http://127.0.0.1:8001"
    if ":" in host:
        return None if port != 0 else "has the port 0"
    try:
        host.encode("idna")
    except UnicodeError:
        return f"names a host that can't be: {host!r}"
    if re.fullmatch(r"[\d.]+", host) and not is_address(host):
        return f"names an address that can't be: {host}"
    return None if port != 0 else "has the port 0"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    return host.lower() == LOOPBACK_NAME or (is_address(host) and ipaddress.ip_address(host).is_loopback)


def is_address(host: str) -> bool:
    """Whether it is an IP address, and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
