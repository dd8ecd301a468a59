"""Where engines are: how an endpoint is written, and the engine's settings that it becomes."""

import ipaddress
import re
from collections.abc import Iterable
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from paceline.engines import ENGINES
from paceline.settings import CloudEngineSettings, EngineSettings

KINDS = tuple(kind for kind, driver in ENGINES.items() if not issubclass(driver.settings_type, CloudEngineSettings))
"""Of engines that may stand behind an endpoint; a provider is none."""
DETECTED = "auto"
"""Stands for a kind that is to be found out by asking the engine."""
_NO_NAME = re.compile(r"[^A-Za-z0-9._-]+")


class BadEndpoint(ValueError):
    """What is written is no endpoint; ``str()`` says why, and how one is written."""


class Endpoint(Struct, frozen=True):
    """A place where an engine is to be found."""

    address: str
    """``10.0.0.1:8000``, or ``[fd00::1]:8000``: gateways take no names."""
    kind: str = DETECTED
    """Of the engine, as in ``[[engine]]``."""
    name: str = ""
    """Of the engine; empty for one that is made of the address."""
    machine_kind: str | None = None
    """As in ``[[engine]]``: a new endpoint starts from what is known of others on machines of the same kind."""

    def settings(self, kind: str, api_key: str | None = None) -> EngineSettings:
        """The settings of its engine.

        Args:
            kind: of the engine, where that had to be found out.
            api_key: to be shown to it, as in ``[[engine]]``.
        """
        table = {
            "kind": kind,
            "name": _NO_NAME.sub("-", self.name or self.address).strip("-"),
            "url": f"http://{self.address}",
            "takes_private": True,  # it is where the operator's gateway sends everything
        }
        table |= {"api_key": api_key} if api_key is not None else {}
        table |= {"machine_kind": self.machine_kind} if self.machine_kind is not None else {}
        settings: EngineSettings = msgspec.convert(table, ENGINES[kind].settings_type)
        return settings


def endpoint(text: str) -> Endpoint:
    """An endpoint as it is written in a file or an option: ``10.0.0.1:8000``, ``vllm=10.0.0.1:8000``.

    Raises:
        BadEndpoint: it is none.
    """
    kind, equals, address = text.strip().rpartition("=")
    if equals and kind not in (*KINDS, DETECTED):
        raise BadEndpoint(f"{text.strip()!r}: there is no kind {kind!r}; there are: {', '.join(KINDS)}")
    return Endpoint(checked_address(address.removeprefix("http://").rstrip("/")), kind or DETECTED)


def endpoints_in(text: str, source: str) -> list[Endpoint]:
    """The endpoints of a file, one a line; ``#`` begins a remark.

    Raises:
        BadEndpoint: a line is none; with file and line.
    """
    found: dict[str, Endpoint] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if written := line.partition("#")[0].strip():
            try:
                one = endpoint(written)
            except BadEndpoint as error:
                raise BadEndpoint(f"{source}:{number}: {error}") from error
            found.setdefault(one.address, one)
    return list(found.values())


def checked_address(address: str) -> str:
    """An address with a port, in the one form that it is compared in.

    Raises:
        BadEndpoint: it is none.
    """
    host, colon, port = address.rpartition(":")
    try:
        ip = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError as error:
        raise BadEndpoint(f"{address!r} names no IP address; write an endpoint as 10.0.0.1:8000") from error
    if not colon or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise BadEndpoint(f"{address!r} has no port; write an endpoint as 10.0.0.1:8000")
    return f"[{ip}]:{int(port)}" if ip.version == 6 else f"{ip}:{int(port)}"


def address_of(settings: EngineSettings) -> str | None:
    """The address of an engine by its URL; ``None`` where a gateway could not send a request there."""
    if settings.is_cloud or settings.base_url is None:
        return None
    parts = urlsplit(settings.base_url)
    if parts.scheme != "http" or parts.path:
        return None
    try:
        place = parts.netloc.rpartition("@")[2]
        return checked_address(place if parts.port else f"{place}:80")
    except BadEndpoint:
        return None


def is_in(address: str, subset: Iterable[str]) -> bool:
    """Whether an endpoint is among those that a gateway lists, which may leave out the port."""
    host = address.rpartition(":")[0]
    return any(listed in (address, host, host.strip("[]")) for listed in subset)
