"""What a starting gateway says: how its engines come up, and then where to send what, ready to be pasted."""

import asyncio
import shlex
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

import msgspec

from paceline import __version__
from paceline.cli.common import own_command, shortened
from paceline.cli.remote import KEY_VARIABLE, http_url
from paceline.configuration import has_keys, is_loopback
from paceline.http.server import Gateway
from paceline.paths import log_directory
from paceline.processes import Health
from paceline.serving.handles import EngineHandle
from paceline.workers.keeper import Keeper

PROGRESS_INTERVAL_S = 5.0
"""Seconds between two lines that say what is still waited for."""
LOOK_INTERVAL_S = 0.05
"""Seconds between two looks at what the supervisors know; nothing is asked of the engines for it."""
MAX_NAMED_MODELS = 3
"""Models of an engine that are named; of more, the number is said."""


async def announce(gateway: Gateway | Keeper, of_one_model: bool) -> bool:
    """Say how the engines come up, and when one is and no other is starting, where to send what.

    Args:
        of_one_model: all engines serve one model, so that nothing will come by itself when all have failed.

    Returns:
        Whether an engine is up. If not, none will be, and it was said.
    """
    engines = gateway.fleet.engines
    print(
        f"paceline {__version__}: {len(engines)} engine{'s' * (len(engines) > 1)}; "
        f"logs of those it starts: {log_directory()}",
        flush=True,
    )
    # 1. Until each engine is up, or need not be waited for.
    await _report_starts(engines)
    # 2. Where none is up: either none will be, or one may come later.
    if not _is_any_up(gateway):
        if of_one_model or not _may_come(gateway):
            print(_nothing_is_up(gateway, of_one_model), flush=True)
            return False
        await _report_a_late_one(gateway)
    # 3. Where to send what.
    print(_invitation(gateway), flush=True)
    return True


async def _report_starts(engines: Mapping[str, EngineHandle]) -> None:
    loop = asyncio.get_running_loop()
    started_s = last_progress_s = loop.time()
    pending = dict(engines)
    while pending:
        for name, engine in list(pending.items()):
            if engine.supervisor.health is Health.UP and engine.supervisor.facts:
                print(f"  {name:<10} up after {loop.time() - started_s:.1f} s: {_about(engine)}", flush=True)
                del pending[name]
            elif engine.supervisor.health is Health.FAILED or _is_given_up(engine):
                print(f"  {name:<10} {engine.supervisor.health}: {_problem(engine)}", flush=True)
                del pending[name]
        if pending and loop.time() - last_progress_s >= PROGRESS_INTERVAL_S:
            last_progress_s = loop.time()
            waiting = "; ".join(f"{name}: {_problem(engine)}" for name, engine in pending.items())
            print(f"  ... {last_progress_s - started_s:.0f} s, {waiting}", flush=True)
        await asyncio.sleep(LOOK_INTERVAL_S)


async def _report_a_late_one(gateway: Gateway | Keeper) -> None:
    print(
        f"NO ENGINE IS UP: {_address(gateway)} answers 503 until one comes; they are looked for all the time. "
        "Ctrl-C stops.",
        flush=True,
    )
    while not _is_any_up(gateway):
        await asyncio.sleep(LOOK_INTERVAL_S)
    for name, engine in gateway.fleet.engines.items():
        if engine.is_up:
            print(f"  {name:<10} up: {_about(engine)}", flush=True)


def announce_stop(in_flight: int, grace_s: float) -> None:
    """Say what a gateway that is asked to stop waits for.

    Args:
        in_flight: answers that are still running.
        grace_s: how long they may take.
    """
    if in_flight:
        running = "1 answer" if in_flight == 1 else f"{in_flight} answers"
        print(f"{running} still running, up to {grace_s:g} s; Ctrl-C again stops now", flush=True)


def _is_given_up(engine: EngineHandle) -> bool:
    """Whether it is down, and need not be waited for: it was not started by us, or has ended too often."""
    return engine.supervisor.health is Health.DOWN and not engine.supervisor.is_coming


def _is_any_up(gateway: Gateway | Keeper) -> bool:
    return any(engine.is_up for engine in gateway.fleet.engines.values())


def _may_come(gateway: Gateway | Keeper) -> bool:
    """Whether an engine may be up later without a change of the configuration."""
    return any(engine.supervisor.health is not Health.FAILED for engine in gateway.fleet.engines.values())


def _nothing_is_up(gateway: Gateway | Keeper, of_one_model: bool) -> str:
    if not of_one_model:
        return (
            "no engine can be started as it is configured: mend what is said above; `paceline doctor --config FILE` "
            "looks again"
        )
    logs = " and ".join(str(engine.supervisor.log_path) for engine in gateway.fleet.engines.values())
    return (
        f"no engine came up, so there is nothing to serve: what each said is above, and all of it in {logs}. Less of "
        "--context-tokens or --slots takes less memory; --llama-server names another engine."
    )


def _about(engine: EngineHandle) -> str:
    facts = engine.supervisor.facts
    assert facts is not None
    parts = [_models(facts.models), _chosen(engine)]
    if facts.slots and facts.context_tokens:
        parts.append(f"{facts.slots} slot{'s' * (facts.slots > 1)} of {facts.context_tokens} tokens")
    elif facts.context_tokens:
        parts.append(f"{facts.context_tokens} tokens of context")
    elif facts.slots:
        parts.append(f"{facts.slots} slot{'s' * (facts.slots > 1)}")
    return ", ".join(parts)


def _models(names: Iterable[str]) -> str:
    shown = [shortened(name) for name in names]
    more = len(shown) - MAX_NAMED_MODELS
    return ", ".join(shown[:MAX_NAMED_MODELS]) + (f" and {more} more models" if more > 0 else "") or "no model"


def _chosen(engine: EngineHandle) -> str:
    """How it drafts."""
    lanes = [handle.lane for handle in engine.lanes()]
    if len(lanes) == 1:
        return str(lanes[0].strategy)
    how = "decided at each step" if any(lane.strategy.among for lane in lanes) else "chosen by request"
    return f"{how}: {', '.join(lane.strategy.name for lane in lanes)}"


def _problem(engine: EngineHandle) -> str:
    return shortened(engine.supervisor.problem or "starting")


def _address(gateway: Gateway | Keeper) -> str:
    """One at which this machine reaches it."""
    url = urlsplit(gateway.url)
    return http_url(url.hostname or "", url.port)


def _invitation(gateway: Gateway | Keeper) -> str:
    address = _address(gateway)
    body = {"messages": [{"role": "user", "content": "Tell me a story."}], "max_tokens": 64}
    if models := list(gateway.fleet.models()):
        body = {"model": models[0], **body}
    data = shlex.quote(msgspec.json.encode(body).decode())
    configuration = gateway.fleet.configuration
    with_key = f' -H "authorization: Bearer ${KEY_VARIABLE}"' if has_keys(configuration) else ""
    lines = [
        "serving",
        f"  OpenAI     {address}/v1",
        f"  Anthropic  {address}",
        f"  dashboard  {address}/paceline/",
        "try",
        f"  curl -i {address}/v1/chat/completions{with_key} -d {data}",
        f"  {own_command()} bench run --quick --url {address}    # what each lane brings here, in two minutes",
    ]
    if with_key:
        lines.insert(5, f"  export {KEY_VARIABLE}=...    # a key of yours: requests need one")
    if not is_loopback(configuration.server.host):
        whom = "who have a key" if with_key else "without a key, as --insecure or server.insecure says"
        lines.insert(1, f"  listening on {configuration.server.host}, open to other machines {whom}")
    return "\n".join([*lines, "Ctrl-C stops."])
