"""What Paceline needs to know of an engine, and do with it. A driver answers these questions, no more.

A driver speaks for a kind of engine and keeps no state: all that differs between two engines of a kind stands in their
settings and comes with each call. ``check.py`` holds every driver to what is promised here.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

from msgspec import Struct

from paceline.engines.observation import Observer
from paceline.settings import EngineSettings
from paceline.types import AS_STARTED, LOGPROBS, Abilities, DraftControl, Request, Strategy
from paceline.wire.client import Client
from paceline.wire.headers import Headers

SettingsType = TypeVar("SettingsType", bound=EngineSettings)
"""A kind's own settings."""


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


class Facts(Struct, frozen=True, kw_only=True):
    """What an engine says about itself. ``None`` where it does not say."""

    models: Mapping[str, Mapping[str, Any]] = {}
    """Its entries of ``/v1/models`` by every name they go by."""
    build: str | None = None
    context_tokens: int | None = None
    """Tokens of context for one request."""
    slots: int | None = None
    """Requests it decodes at once."""
    slot_tokens: tuple[int, ...] = ()
    """Tokens that each slot's cache holds, of the request at work or the last one; empty where it does not say."""


class Examination(Struct, frozen=True, kw_only=True):
    """What an engine does, seen by its answers."""

    abilities: Abilities = AS_STARTED
    contradictions: tuple[str, ...] = ()
    """Where it is not what the configuration says, in words for the operator."""
    is_provisional: bool = False
    """Whether more may be found later, as where no model is loaded yet."""


class Engine(Protocol[SettingsType]):
    """How to talk to one kind of engine."""

    settings_type: type[SettingsType]
    """The keys that an ``[[engine]]`` table of this kind may have; the type's tag is the kind."""
    written_fields: frozenset[str]
    """The fields of a request's body that :meth:`prepare` may add or replace; it changes no others. Where one holds an
    object, what the client wrote into that is kept."""
    takes_any_model_name: bool
    """Whether the engine, where it has a single model, serves that to requests that name another one."""
    may_have_page: bool
    """Whether the engine may show a page for people at its root."""

    async def probe(self, client: Client) -> Facts:
        """Ask the engine what it is.

        This is also the health check. The supervisor calls it every ``health_interval_s`` as long as the engine is
        configured, so it has to be cheap, and it may not change anything.

        Raises:
            NotReady: it answered, but can't serve, or its answer makes no sense.
            ConnectFailed, ConnectionLost, TimeoutError: no answer.
        """
        ...

    async def examine(self, client: Client, settings: SettingsType) -> Examination:
        """Find out what the running engine can do, and whether it is what its settings say.

        The supervisor calls it after a successful :meth:`probe`, once each time the engine has come up, and gives it a
        minute. Whatever it raises, the engine is up, and is used as it was started.

        Raises:
            NotReady: it can't be told.
            ConnectFailed, ConnectionLost, TimeoutError: no answer.
        """
        ...

    def prepare(self, request: Request, strategy: Strategy, abilities: Abilities, control: DraftControl) -> bytes:
        """The request's body with the strategy written into it, if the engine has the ability.

        The gateway calls it for each request that it has decided on, just before it is sent. It does no I/O and raises
        nothing. A field of the strategy's that the client gave itself stays the client's.

        Args:
            strategy: of the lane that was chosen.
            abilities: what :meth:`examine` found last.
            control: what the engine's own control of drafts is to start from, as far as it has one.
        """
        ...

    def observe(self, request: Request, strategy: Strategy) -> Observer:
        """A fresh observer for the answer to a request that was prepared with this strategy.

        The gateway calls it once for each answer and feeds it the answer's bytes as they pass by. It raises nothing.
        """
        ...

    def launch(self, command: Sequence[str], port: int) -> tuple[str, ...]:
        """The command that starts the engine on a port, checked against what this build offers.

        The supervisor calls it in a thread of its own before each start, so it may read files and run programs.

        Args:
            command: the settings' ``launch``; it is not empty.

        Raises:
            LaunchError: the program is not there, or does not know a flag.
        """
        ...

    def key_variable(self, command: Sequence[str]) -> str | None:
        """The environment variable in which an engine that is launched so takes the key that it is to ask for;
        ``None`` where it takes none. The supervisor calls it before each start."""
        ...

    def key_headers(self, key: str | None) -> Headers:
        """The headers that show it a key, and others that each request to it must have. The names are in small
        letters."""
        ...

    def full_model_name(self, name: str) -> str:
        """A model's name with all that the engine adds where it is left out: names that are the same so name the same
        model. The gateway calls it where a request names a model that the engine does not list to the letter."""
        ...


AnyEngine = Engine[Any]
"""A driver of whatever kind, to be used with settings of the same kind."""


def assumed(strategy: Strategy) -> Abilities:
    """The abilities of an engine that could not be asked: it decodes as it was started; and if that is with drafts,
    their tokens come without probabilities."""
    return Abilities(not_when_drafting=LOGPROBS if strategy.drafts else frozenset())


def put_port(command: Sequence[str], port: int) -> tuple[str, ...]:
    """A launch command with its ``{port}`` filled in."""
    return tuple(word.replace("{port}", str(port)) for word in command)
