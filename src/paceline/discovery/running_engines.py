"""Engines that run on this machine, found on the ports that they usually have."""

import asyncio

import msgspec
from msgspec import Struct

from paceline.engines import ENGINES, NotReady
from paceline.engines.identify import identify
from paceline.engines.interface import Examination
from paceline.settings import LocalEngineSettings, StrategyKind
from paceline.wire.client import Client, ConnectFailed, ConnectionLost

USUAL_PORTS: tuple[int, ...] = (8080, 8000, 8001, 8002, 9001, 9002, 11434, 1234, 30000, 5000)
"""llama.cpp, ik_llama.cpp and mlx-lm listen on 8080 where nobody says otherwise; vLLM on 8000, Ollama on 11434, LM
Studio on 1234, SGLang on 30000, TabbyAPI on 5000. The others are what people take next."""
EXAMINATION_TIMEOUT_S = 30.0
"""An engine that is slower is taken as it says it is."""


class RunningEngine(Struct, frozen=True, kw_only=True):
    """An engine that answers.

    Args:
        strategy: how it drafts, as far as it was seen.
        n_max: longest draft, in tokens.
    """

    kind: str
    url: str
    models: tuple[str, ...]
    strategy: StrategyKind = "autoregressive"
    n_max: int | None = None

    def __str__(self) -> str:
        models = ", ".join(self.models[:2]) + (f" and {len(self.models) - 2} more" if len(self.models) > 2 else "")
        return f"{self.kind} at {self.url} ({models or 'no model yet'})"


async def running_engines() -> list[RunningEngine]:
    """Those on the usual ports of this machine, gateways of Paceline's left out."""
    found = await asyncio.gather(*(_engine_at(f"http://127.0.0.1:{port}") for port in USUAL_PORTS))
    return [engine for engine in found if engine is not None]


async def _engine_at(url: str) -> RunningEngine | None:
    """The engine at an address; ``None`` where none answers."""
    seen = await identify(url)
    if seen is None or seen.kind is None:
        return None
    return RunningEngine(kind=seen.kind, url=url, models=seen.models)


async def examined(engine: RunningEngine) -> RunningEngine:
    """The engine with the strategy that it is seen to have, by a few short completions."""
    driver = ENGINES[engine.kind]
    client = Client(engine.url)
    try:
        async with asyncio.timeout(EXAMINATION_TIMEOUT_S):
            examination: Examination = await driver.examine(client, driver.settings_type(name="engine", url=engine.url))
    except (NotReady, ConnectFailed, ConnectionLost, TimeoutError, ValueError):
        return engine
    finally:
        client.close()
    return _with_strategy(engine, examination)


def _with_strategy(engine: RunningEngine, examination: Examination) -> RunningEngine:
    abilities = examination.abilities
    if abilities.drafters:
        drafter = abilities.drafters[0]
        kind, n_max = drafter.kind, drafter.n_max
    elif abilities.as_seen:
        kind, n_max = abilities.as_seen.kind, abilities.as_seen.n_max
    else:
        return engine
    try:
        strategy = msgspec.convert(kind, StrategyKind)
    except msgspec.ValidationError:  # it drafts by something that has no name here
        return engine
    return msgspec.structs.replace(engine, strategy=strategy, n_max=n_max)


def local_settings(engine: RunningEngine, name: str, device: str | None) -> LocalEngineSettings:
    """The table of a configuration for it."""
    settings_type: type[LocalEngineSettings] = ENGINES[engine.kind].settings_type
    return settings_type(
        name=name,
        url=engine.url,
        strategy=engine.strategy,
        n_max=engine.n_max,
        device=device,
    )
