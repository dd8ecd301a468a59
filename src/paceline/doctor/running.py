"""Looks at what runs: the engines at their addresses, the port, and a gateway that serves."""

import asyncio
import errno
import socket
from collections.abc import Iterator
from typing import Any

from paceline import __version__
from paceline.addresses import is_loopback
from paceline.api_keys import resolved
from paceline.doctor.finding import Finding, fault, fine, note, warning
from paceline.doctor.scene import Scene, quoted
from paceline.engines import ENGINES, NotReady
from paceline.engines.identify import UNKNOWN, identify
from paceline.settings import CloudEngineSettings, ConfigurationError, EngineSettings
from paceline.wire.client import Client, ConnectFailed, ConnectionLost

LOOK_TIMEOUT_S = 6.0
"""For one engine."""
AGENTS_CONTEXT_TOKENS = 16_384
"""First requests of coding agents have 8,000 to 20,000 tokens with the tools that they offer."""
MANY_RESTARTS = 3
"""Of an engine; fewer happen."""
OTHERS = ("ik_llama.cpp", "mlx-serve", "mtplx", "imp")
"""Kinds of engines that can't be told from others by what they say of themselves."""


async def engines_answer(scene: Scene) -> list[Finding]:
    """The engines that run already: whether they are there, take the key, and are what they are said to be."""
    wanted = [
        (index, engine)
        for index, engine in enumerate(scene.configuration.engine)
        if engine.url and not isinstance(engine, CloudEngineSettings)
    ]
    found = await asyncio.gather(*(_engine(scene, index, engine) for index, engine in wanted))
    return [finding for findings in found for finding in findings]


async def _engine(scene: Scene, index: int, engine: EngineSettings) -> list[Finding]:
    about, driver, url = f"engine {engine.name}", ENGINES[engine.kind], engine.base_url or ""
    place = scene.place("engine", index, "url")
    try:
        key = resolved(engine.api_key) if engine.api_key else None
        headers = driver.key_headers(key)
    except ConfigurationError:
        return []  # it is said of the file
    client = Client(url, fetch_headers=headers, secrets=[key] if key else ())
    try:
        async with asyncio.timeout(LOOK_TIMEOUT_S):
            facts = await driver.probe(client)
    except ConnectFailed as error:
        return [
            fault(
                "engine-not-there",
                about,
                f"{place}: nothing answers at {url}: {error}.",
                f"start the engine, or correct its url in {place}",
            )
        ]
    except NotReady as error:
        return [_not_ready(scene, index, engine, error)]
    except (ConnectionLost, TimeoutError) as error:
        said = str(error) or f"no answer within {LOOK_TIMEOUT_S:g} s"
        return [fault("engine-silent", about, f"{place}: {url} does not answer: {said}.", "restart the engine")]
    finally:
        client.close()
    findings = []
    seen = await identify(url, headers)
    if seen and seen.is_paceline:
        findings.append(
            warning(
                "engine-is-gateway",
                about,
                f"{place}: what answers at {url} is a Paceline gateway, and no engine.",
                f"write the address of the engine behind it into {place}",
            )
        )
    elif seen and seen.kind not in (None, UNKNOWN, engine.kind) and engine.kind not in OTHERS:
        findings.append(
            warning(
                "wrong-kind",
                about,
                f"{place}: {url} is an engine of kind {seen.kind}, but configured as {engine.kind}.",
                f'write kind = "{seen.kind}" into {scene.place("engine", index, "kind")}',
            )
        )
    if not facts.models:
        findings.append(
            warning("no-model-loaded", about, f"{url} answers, but has no model.", "load a model in the engine")
        )
    if facts.context_tokens is not None and facts.context_tokens < AGENTS_CONTEXT_TOKENS:
        findings.append(
            note(
                "short-context",
                about,
                f"Each request has {facts.context_tokens} tokens of context; coding agents begin with up to 20,000.",
                "start the engine with a longer context, if agents are to use it (llama.cpp: --ctx-size)",
            )
        )
    if not findings:
        findings.append(fine(about, f"{url} answers, with {', '.join(list(facts.models)[:3])}."))
    return findings


def _not_ready(scene: Scene, index: int, engine: EngineSettings, error: NotReady) -> Finding:
    about, place = f"engine {engine.name}", scene.place("engine", index, "url")
    message = f"{place}: {engine.base_url} answers, but can't be used: {error}."
    if error.status in (401, 403):
        where = scene.place("engine", index, "api_key")
        return fault("engine-wants-key", about, message, f'write api_key = "env:NAME" into {where}')
    if error.status == 503:
        return note("engine-loading", about, message, "wait until the engine has loaded its model")
    return fault(
        "engine-unlike",
        about,
        message,
        f"correct the url in {place}: it is no engine of kind {engine.kind}, or not its address",
    )


def port_is_free(scene: Scene) -> Iterator[Finding]:
    """Whether the gateway can listen where it is to, or does already."""
    server = scene.configuration.server
    host, port, about = server.host, server.port, f"port {server.port}"
    other = port + 1 if port < 65_535 else port - 1
    if scene.gateway:
        yield fine(about, f"A Paceline runs there: {scene.gateway.url}.")
        return
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((host, port))
            trial.listen()
    except OSError as error:
        place = scene.place("server", "port")
        if error.errno == errno.EADDRINUSE:
            who = f"an engine of kind {scene.at_port.kind}" if scene.at_port and scene.at_port.kind else "a program"
            yield fault(
                "port-taken",
                about,
                f"{place}: {who} listens on {host}:{port} already.",
                f"paceline serve {scene.config_option} --port {other}, or end it (ss -ltnp 'sport = :{port}' names it)",
            )
        elif error.errno == errno.EACCES:
            yield fault(
                "port-not-allowed",
                about,
                f"{place}: only administrators may listen on ports below 1024.",
                f"paceline serve {scene.config_option} --port 8080, behind a reverse proxy if it has to be {port}",
            )
        else:
            yield fault(
                "address-not-ours",
                about,
                f"{scene.place('server', 'host')}: {host} is no address of this machine: {error.strerror or error}.",
                f"write 127.0.0.1 or an address that `ip address` lists into {scene.place('server', 'host')}",
            )
        return
    yield fine(about, f"{host}:{port} is free.")


def gateway_is_well(scene: Scene) -> Iterator[Finding]:
    """What a running gateway tells of its lanes."""
    if scene.gateway is None:
        return
    about = "gateway"
    if scene.gateway.problem:
        yield note(
            "gateway-silent",
            about,
            f"The gateway at {scene.gateway.url} runs, but does not tell of its lanes: {scene.gateway.problem}.",
            "export PACELINE_API_KEY=... with an administrator's key, and look again",
        )
        return
    document = scene.gateway.lanes
    if (version := document.get("version")) != __version__:
        yield warning(
            "old-gateway",
            about,
            f"Version {version} runs, and {__version__} is installed.",
            "restart it: systemctl --user restart paceline, or as it was started",
        )
    for failed, count in document.get("routing_failures", {}).items():
        yield warning(
            "routing-failed",
            about,
            f"{failed} failed {count} times; those requests were served on the default lane.",
            "look into what the gateway said (journalctl --user -u paceline), and report it",
        )
    if (log := document.get("log")) and log.get("lost"):
        yield warning(
            "log-lost",
            about,
            f"{log['lost']} entries of the decision log were lost.",
            f"see whether the disk of {scene.state} is full or slow: df -h {quoted(scene.state)}",
        )
    yield from _lanes(scene, document.get("lanes", []))


def _lanes(scene: Scene, lanes: list[dict[str, Any]]) -> Iterator[Finding]:
    told: set[str] = set()
    for lane in lanes:
        engine = lane["engine"]
        about = f"lane {lane['lane']}"
        log = scene.state / "log" / f"{engine['name']}.log"
        if lane["health"] != "up":
            yield fault(
                "lane-down",
                about,
                f"It is {lane['health']}: {lane['problem'] or 'nothing is known of it'}.",
                f"tail -50 {quoted(log)}" if engine["pid"] or log.exists() else "start its engine again",
            )
        elif lane["ejected"]:
            yield warning(
                "engine-ejected", about, f"It is left alone: {lane['ejected']}.", "restart its engine if that goes on"
            )
        if engine["name"] in told:
            continue
        told.add(engine["name"])
        for warned in engine["warnings"]:
            yield warning(
                "engine-contradicts", f"engine {engine['name']}", f"{warned}.", f"correct its table in {scene.file}"
            )
        if engine["restarts"] >= MANY_RESTARTS:
            yield warning(
                "engine-restarts",
                f"engine {engine['name']}",
                f"It was started again {engine['restarts']} times.",
                f"tail -50 {quoted(log)}",
            )
    for lane in lanes:
        for broken in lane.get("faults") or ():
            if broken not in told:
                told.add(broken)
                yield warning(
                    "drafts-not-accepted",
                    f"engine {lane['engine']['name']}",
                    f"{broken}.",
                    "give it another drafter: paceline plan MODEL --draft FILE",
                )


def reachable_by_others(scene: Scene) -> Iterator[Finding]:
    """A gateway that is meant for others, and can't be reached by them."""
    server = scene.configuration.server
    if is_loopback(server.host) and server.cors and any("localhost" not in origin for origin in server.cors):
        yield note(
            "loopback-only",
            "gateway",
            f"{scene.place('server', 'host')}: pages of other machines are allowed (server.cors), but only this "
            "machine reaches it.",
            'write host = "0.0.0.0" and keys into [server], if other machines are to reach it',
        )
