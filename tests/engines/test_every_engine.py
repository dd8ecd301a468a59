"""What every driver promises, and that the check of it notices what is broken."""

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
from msgspec import Meta

import paceline.engines
from paceline.engines import ENGINES, Facts
from paceline.engines.body import with_fields
from paceline.engines.check import BrokenPromises, check_engine
from paceline.engines.interface import Examination
from paceline.engines.observation import Observer
from paceline.engines.openai_compatible import OpenAICompatible
from paceline.settings import EngineSettings, LocalEngineSettings
from paceline.types import Abilities, DraftControl, Drafter, Request, Strategy
from paceline.wire.client import Client

PAGE = (Path(__file__).parents[2] / "docs" / "engines.md").read_text()


@pytest.mark.parametrize("kind", ENGINES)
async def test_every_driver_keeps_its_promises(kind: str) -> None:
    await check_engine(ENGINES[kind], PAGE)


def test_every_driver_is_registered() -> None:
    for module in pkgutil.iter_modules(paceline.engines.__path__, "paceline.engines."):
        importlib.import_module(module.name)
    declared = {
        settings for settings in _derived(EngineSettings) if settings.__module__.startswith("paceline.engines.")
    }
    assert declared == {engine.settings_type for engine in ENGINES.values()}


def _derived(settings: type[EngineSettings]) -> Iterator[type[EngineSettings]]:
    for derived in settings.__subclasses__():
        yield derived
        yield from _derived(derived)


class ExampleSettings(LocalEngineSettings, frozen=True, kw_only=True, tag="example"):
    """An engine of an example."""


class UndocumentedSettings(LocalEngineSettings, frozen=True, kw_only=True, tag="example"):
    """An engine of an example."""

    secret: str | None = None


class UnnamedSettings(LocalEngineSettings, frozen=True, kw_only=True):
    """An engine of an example."""

    own: Annotated[str | None, Meta(description="Its own.")] = None


class Example(OpenAICompatible[Any]):
    settings_type: type[Any] = ExampleSettings


class WritesWhatItDoesNotSay(Example):
    def prepare(self, request: Request, strategy: Strategy, abilities: Abilities, control: DraftControl) -> bytes:
        return with_fields(request, {"n_max": strategy.n_max})


class LosesWhatTheClientWrote(Example):
    written_fields = frozenset({"options"})

    def prepare(self, request: Request, strategy: Strategy, abilities: Abilities, control: DraftControl) -> bytes:
        return with_fields(request, {"options": {"n_max": strategy.n_max}})


class Reformats(Example):
    def prepare(self, request: Request, strategy: Strategy, abilities: Abilities, control: DraftControl) -> bytes:
        return msgspec.json.encode(dict(request.fields) | {"temperature": 0.7})


class RaisesOddErrors(Example):
    async def probe(self, client: Client) -> Facts:
        raise KeyError("data")

    async def examine(self, client: Client, settings: Any) -> Examination:
        raise KeyError("choices")


class Believes(Example):
    async def examine(self, client: Client, settings: Any) -> Examination:
        return Examination(abilities=Abilities((Drafter("draft", "small", 8),)))


class Swallows(Example):
    def observe(self, request: Request, strategy: Strategy) -> Observer:
        class Silent(Observer):
            def feed(self, piece: bytes, at_s: float) -> bytes:
                return b""

        return Silent(request)


class LaunchesAnything(Example):
    def launch(self, command: Any, port: int) -> tuple[str, ...]:
        return tuple(command)


class Undocumented(Example):
    settings_type = UndocumentedSettings


class Unnamed(Example):
    settings_type = UnnamedSettings


async def test_a_driver_as_it_should_be_passes() -> None:
    await check_engine(Example(), "| an example | `example`, `url` |")


@pytest.mark.parametrize(
    ("engine", "problem"),
    [
        (WritesWhatItDoesNotSay(), "changes the field n_max, which is not among its written_fields"),
        (LosesWhatTheClientWrote(), "over the client's own options"),
        (Reformats(), "changes the field x"),
        (RaisesOddErrors(), "raises KeyError"),
        (Believes(), "makes requests choose among"),
        (Swallows(), "is not passed on as it came"),
        (LaunchesAnything(), "takes a program that is not there"),
        (Undocumented(), "the key secret has no Meta"),
        (Unnamed(), "no tag= that names the kind"),
    ],
    ids=lambda case: type(case).__name__,
)
async def test_what_a_driver_breaks_is_said(engine: Any, problem: str) -> None:
    with pytest.raises(BrokenPromises, match=problem):
        await check_engine(engine)


async def test_a_kind_without_a_row_in_the_documentation_is_said() -> None:
    with pytest.raises(BrokenPromises, match="has no row"):
        await check_engine(Example(), PAGE)
