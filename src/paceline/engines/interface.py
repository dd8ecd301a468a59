"""What Paceline needs to know of an engine, and do with it. An engine module answers these questions, no more."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct

from paceline.engines.observation import Observer
from paceline.types import AS_STARTED, Abilities, Request, Strategy
from paceline.wire.client import Client

REPEATED = "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20\n" * 4
"""A text that any drafter drafts from, to see whether an engine does when it is asked not to."""
TOO_SLOW = "it was too slow to find out whether requests may choose their strategy; it is used as it was started"
TRY_LIMIT_S = 30.0
"""For each of the short completions of an examination."""


class NotReady(Exception):
    """The engine can't serve now: it is loading, it is not there, or it is not what the configuration says.

    Args:
        status: of its answer, where that was the trouble.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status

    @property
    def is_busy(self) -> bool:
        """Whether it only has too much to do to be looked at."""
        return self.status == 429


class LaunchError(Exception):
    """The engine can't be started as asked; trying again would not help."""


class Facts(Struct, frozen=True):
    """What an engine says about itself. ``None`` where it does not say."""

    models: Mapping[str, Mapping[str, Any]] = {}
    """Its entries of ``/v1/models`` by every name they go by."""
    build: str | None = None
    context_tokens: int | None = None
    """Tokens of context for one request."""
    slots: int | None = None
    """Requests it decodes at once."""


class Examination(Struct, frozen=True):
    """What an engine does, seen by its answers."""

    abilities: Abilities = AS_STARTED
    contradictions: tuple[str, ...] = ()
    """Where it is not what the configuration says, in words for the operator."""
    is_provisional: bool = False
    """Whether more may be found later, as where no model is loaded yet."""


class Engine(Protocol):
    """How to talk to one kind of engine. Implementations keep no state."""

    async def probe(self, client: Client) -> Facts:
        """Ask the engine what it is; also the health check, so it has to be cheap.

        Raises:
            NotReady: it answered, but can't serve.
            ConnectFailed, ConnectionLost, TimeoutError: no answer.
        """
        ...

    async def examine(self, client: Client, strategy: Strategy, draft_model: str | None) -> Examination:
        """Find out what the running engine can do, and whether it is what the configuration says: that it was started
        with ``strategy``, or that requests may ask for ``draft_model``.

        Asked once each time the engine comes up. Whatever it raises, the engine is used, as it was started.
        """
        ...

    def prepare(self, request: Request, strategy: Strategy, abilities: Abilities, min_yield: float) -> bytes:
        """The request's body with the strategy written into it, if the engine has the ability.

        Args:
            min_yield: tokens per drafting step below which drafting is slower than none, as far as is known; else 0.
        """
        ...

    def observe(self, request: Request, strategy: Strategy) -> Observer:
        """A fresh observer for the answer to a request that was prepared with this strategy."""
        ...

    def launch(self, command: Sequence[str], port: int) -> tuple[str, ...]:
        """The command that starts the engine on a port, checked against what this build offers.

        Raises:
            LaunchError: the program is not there, or does not know a flag.
        """
        ...

    def key_variable(self, command: Sequence[str]) -> str | None:
        """The environment variable in which an engine that is launched so takes the key that it is to ask for;
        ``None`` where it takes none."""
        ...


def put_port(command: Sequence[str], port: int) -> tuple[str, ...]:
    """A launch command with its ``{port}`` filled in."""
    return tuple(word.replace("{port}", str(port)) for word in command)
