"""``paceline endpoint-picker``: pick endpoints for Envoy and the gateways of Kubernetes."""

import argparse
import asyncio
import logging
import signal
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from paceline.addresses import is_loopback
from paceline.cli.common import Subparsers, add_command, fail
from paceline.cli.engine_options import whole_number
from paceline.configuration import ConfigurationError, check_usable, load
from paceline.http.own_process import calm_matrices, loop_factory, say
from paceline.http.server import CannotListen as GatewayCannotListen
from paceline.integrations.endpoint_picker.endpoints import DETECTED, KINDS, BadEndpoint, Endpoint, address_of, endpoint
from paceline.integrations.endpoint_picker.kubernetes import ApiServer, InferencePool, NotInCluster
from paceline.integrations.endpoint_picker.picking import Limits, Picker
from paceline.integrations.endpoint_picker.sources import EndpointFile, Given, Source
from paceline.paths import log_directory, state_directory
from paceline.settings import Configuration, EngineSettings

MAX_PORT = 65_535
METRICS_PORT = 9090
"""Where nothing says otherwise: what other endpoint pickers have."""
MAX_MEGABYTES = 2048
MEGABYTE = 1024 * 1024
TOLD_ANYONE = (
    "whoever reaches the port for gateways is told this key; let only gateways with a certificate ask "
    "(--tls-client-ca), listen on this machine alone (--grpc-host 127.0.0.1), or keep strangers out by the network and "
    "give --insecure"
)

EXAMPLES = """examples:
  paceline endpoint-picker --endpoint 10.0.0.1:8000 --endpoint llama.cpp=10.0.0.2:8080
  paceline endpoint-picker --endpoints endpoints.txt       one a line; a change is noticed
  paceline endpoint-picker --pool my-pool                  in a pod: the pods of an InferencePool
"""


def register(commands: Subparsers) -> None:
    parser = add_command(
        commands,
        "endpoint-picker",
        "pick endpoints for Envoy and Kubernetes gateways",
        "Tell gateways that ask by Envoy's external processing to which endpoint a request goes, and "
        "have the endpoint use the strategy that is fastest for the request. Runs until Ctrl-C or "
        "SIGTERM.",
        EXAMPLES,
    )
    found = parser.add_argument_group("endpoints")
    found.add_argument(
        "--endpoint",
        action="append",
        default=[],
        type=_endpoint,
        metavar="[KIND=]ADDRESS",
        help=f"an engine, such as 10.0.0.1:8000; may be given again. KIND is one of {', '.join(KINDS)}; the engine is "
        "asked for it where it is left out",
    )
    found.add_argument("--endpoints", type=Path, metavar="FILE", help="file with such endpoints, one on each line")
    found.add_argument("--pool", metavar="NAME", help="the InferencePool whose ready pods are the endpoints")
    found.add_argument("--namespace", metavar="NAMESPACE", help="with --pool: its namespace (default: the pod's own)")
    found.add_argument(
        "--kubernetes-api", metavar="URL", help="with --pool: the API server (default: that of the pod's cluster)"
    )
    found.add_argument(
        "--engine-kind",
        choices=(DETECTED, *KINDS),
        default=DETECTED,
        help="with --pool: kind of engines in pods without the label llm-d.ai/engine-type (default: they are asked)",
    )
    found.add_argument(
        "--engine-key", metavar="KEY", help="key that is sent to the endpoints: env:NAME or file:PATH (default: none)"
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="configuration file, TOML: its engines are endpoints, too"
    )
    parser.add_argument(
        "--share",
        metavar="STORE",
        help="store through which pickers learn together, as `sharing.store` in the configuration: "
        "redis://HOST:PORT, or a folder",
    )
    own = parser.add_argument_group("where it listens")
    own.add_argument(
        "--grpc-host", default="127.0.0.1", metavar="ADDRESS", help="address for gateways (default: %(default)s)"
    )
    own.add_argument(
        "--grpc-port",
        type=whole_number(0, MAX_PORT),
        default=9002,
        metavar="N",
        help="port for gateways (default: %(default)s)",
    )
    own.add_argument(
        "--tls-certificate", type=Path, metavar="FILE", help="certificate for gateways, PEM (default: none)"
    )
    own.add_argument("--tls-key", type=Path, metavar="FILE", help="its key, PEM")
    own.add_argument(
        "--tls-client-ca",
        type=Path,
        metavar="FILE",
        help="certificates, PEM, of the authorities whose clients may ask (default: everybody may)",
    )
    own.add_argument(
        "--host",
        metavar="ADDRESS",
        help="address for metrics and state (default: the configuration's, else 127.0.0.1)",
    )
    own.add_argument(
        "--port",
        type=whole_number(0, MAX_PORT),
        metavar="N",
        help="port for metrics and state (default: the configuration's, or 9090)",
    )
    own.add_argument(
        "--insecure",
        action="store_true",
        help="show metrics and state beyond this machine although no key is configured, and engines' keys to "
        "whoever reaches the port for gateways",
    )
    limits = parser.add_argument_group("limits")
    usual = Limits()
    limits.add_argument(
        "--fallbacks",
        type=whole_number(0, 16),
        default=usual.fallbacks,
        metavar="N",
        help="how many further endpoints the gateway is told, to try in order; not every gateway accepts a "
        "list (default: %(default)s)",
    )
    limits.add_argument(
        "--queue-limit",
        type=whole_number(0, 1_000_000),
        default=usual.queue_limit,
        metavar="N",
        help="requests that may wait at each endpoint, beyond those that it decodes; more are refused with "
        "429 (default: %(default)s)",
    )
    limits.add_argument(
        "--max-body-mb",
        type=whole_number(1, MAX_MEGABYTES),
        default=usual.max_body_bytes // MEGABYTE,
        metavar="N",
        help="largest request that is decided on; a larger one is passed on as it comes (default: %(default)s)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if (options.tls_certificate is None) != (options.tls_key is None):
        return fail("--tls-certificate and --tls-key go together")
    if options.tls_client_ca is not None and options.tls_key is None:
        return fail("--tls-client-ca needs --tls-certificate and --tls-key")
    if options.engine_key and _tells_anyone(options):
        return fail(f"--engine-key: {TOLD_ANYONE}")
    try:
        from paceline.integrations.endpoint_picker import server, service
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "paceline":
            raise
        return fail(
            f"the endpoint picker needs the package {error.name}; install it with: pip install "
            "'paceline[endpoint-picker]'"
        )
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        sources = _sources(options)
        picker = Picker(
            Limits(
                max_body_bytes=options.max_body_mb * MEGABYTE,
                queue_limit=options.queue_limit,
                fallbacks=options.fallbacks,
            )
        )
        files = (options.tls_certificate, options.tls_key, options.tls_client_ca)
        certificate = server.Certificate(*files) if options.tls_key else None
        program = service.EndpointPicker(
            configuration=_configuration(options),
            sources=sources,
            picker=picker,
            server=server.PickerServer(picker, _address(options), certificate),
            api_key=options.engine_key,
            log_directory=log_directory(),
            state_directory=state_directory(),
            say=say,
        )
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(_serve(program))
    except (ConfigurationError, BadEndpoint, NotInCluster, server.CannotListen, GatewayCannotListen, OSError) as error:
        return fail(str(error))
    return 0


async def _serve(program: Any) -> None:
    calm_matrices()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, program.ask_to_stop)
    loop.add_signal_handler(signal.SIGHUP, program.ask_to_reload)
    await program.run()
    say("stopped")


def _sources(options: argparse.Namespace) -> list[Source]:
    """
    Raises:
        BadEndpoint, OSError: a file can't be used.
        NotInCluster: it is not known where the API server is.
        ConfigurationError: there are none.
    """
    sources: list[Source] = []
    if options.endpoint:
        sources.append(Given(options.endpoint))
    if options.endpoints:
        sources.append(EndpointFile(options.endpoints))
    if options.pool:
        if options.kubernetes_api:
            api = ApiServer(options.kubernetes_api, options.namespace or "default")
        else:
            api = ApiServer.of_this_pod(options.namespace)
        sources.append(InferencePool(api, options.pool, options.engine_kind))
    if not sources and not options.config:
        raise ConfigurationError("no endpoints: give --endpoint, --endpoints, --pool, or --config with engines")
    return sources


def _configuration(options: argparse.Namespace) -> Callable[[Sequence[EngineSettings]], Configuration | None]:
    """What makes a configuration of the engines that were found. It raises :class:`ConfigurationError` where that
    can't be used."""
    given: dict[str, Any] = {key: value for key in ("host", "port") if (value := getattr(options, key)) is not None}
    if options.insecure:
        given["insecure"] = True

    def made(engines: Sequence[EngineSettings]) -> Configuration | None:
        if not engines and not (options.config and _names_engines(options.config)):
            return None
        if options.config:
            configuration = load(options.config, given, engines=engines)
        else:
            usual = Configuration()
            server = replace(usual.server, **{"port": METRICS_PORT, "log_requests": False} | given)
            configuration = replace(usual, server=server, engine=tuple(engines))
        if options.share:
            configuration = replace(configuration, sharing=replace(configuration.sharing, store=options.share))
        check_usable(configuration)
        with_key = [one.name for one in configuration.engine if one.api_key is not None and address_of(one) is not None]
        if with_key and _tells_anyone(options):
            raise ConfigurationError(f"engine {with_key[0]}: api_key: {TOLD_ANYONE}")
        return configuration

    return made


def _tells_anyone(options: argparse.Namespace) -> bool:
    """Whether clients on other machines that are not known may ask, and so are told what the engines are shown."""
    is_bounded = is_loopback(options.grpc_host) or options.tls_client_ca is not None
    return not (is_bounded or options.insecure)


def _names_engines(path: Path) -> bool:
    """Whether a configuration has engines of its own, or is none that can be read."""
    try:
        return "engine" in tomllib.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError):
        return True  # reading it properly says what is wrong


def _address(options: argparse.Namespace) -> str:
    host: str = options.grpc_host
    return f"[{host}]:{options.grpc_port}" if ":" in host else f"{host}:{options.grpc_port}"


def _endpoint(text: str) -> Endpoint:
    try:
        return endpoint(text)
    except BadEndpoint as error:
        raise argparse.ArgumentTypeError(str(error)) from None
