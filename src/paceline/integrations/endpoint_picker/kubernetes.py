"""Endpoints from a cluster: the pods that an InferencePool selects, as the API server lists and watches them
(https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes)."""

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from paceline.integrations.endpoint_picker.endpoints import DETECTED, KINDS, BadEndpoint, Endpoint, checked_address
from paceline.integrations.endpoint_picker.sources import Found, Source
from paceline.wire.client import Client, ConnectFailed, ConnectionLost, bearer

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its token, the cluster's authority and its namespace."""
POOL_GROUP = "inference.networking.k8s.io/v1"
WATCH_S = 240
"""After which the server is asked to end a watch, so that a connection that died unnoticed is not held for ever."""
ANSWER_TIMEOUT_S = 30.0
PAUSES_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""After the first, second ... failure in a row; the last one repeats."""
LASTING_S = 1.0
"""A watch that ends sooner counts as a failure."""
MAX_LINE_BYTES = 8 * 1024 * 1024
"""Of one event; the API server keeps no object above 1.5 MB."""
MAX_LIST_BYTES = 256 * 1024 * 1024
GONE = 410
"""What was known is too old to be watched from: all is listed again."""
ENGINE_LABELS = ("llm-d.ai/engine-type", "inference.networking.k8s.io/engine-type")
"""Labels of pods that name their engine, as other endpoint pickers read them; the first that is there counts."""
ENGINES = {kind.replace(".", "").replace("_", "").replace("-", ""): kind for kind in KINDS}
"""Kinds by how a label may spell them: ``llamacpp``."""

log = logging.getLogger("paceline.integrations")


class NotInCluster(Exception):
    """Nothing says where the API server is."""


class Failed(Exception):
    """The API server can't be asked, or refuses."""


class ApiServer(Struct, frozen=True):
    """Where a cluster's API server is, and how it is asked."""

    url: str
    namespace: str
    token: Path | None = None
    """Its file: it is read for each request, since it is replaced now and then."""
    authority: str | None = None
    """File of the certificates that it is known by."""

    @classmethod
    def of_this_pod(cls, namespace: str | None = None) -> "ApiServer":
        """As a pod is told of it.

        Raises:
            NotInCluster: this is no pod, or it has no service account.
        """
        host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        if not host:
            raise NotInCluster(
                "KUBERNETES_SERVICE_HOST is not set, so this is no pod; name the API server with --kubernetes-api"
            )
        try:
            found = namespace or (ACCOUNT / "namespace").read_text().strip()
        except OSError as error:
            raise NotInCluster(f"the pod has no service account: {error}; give --namespace") from error
        address = f"[{host}]" if ":" in host else host
        return cls(f"https://{address}:{port}", found, ACCOUNT / "token", str(ACCOUNT / "ca.crt"))


class InferencePool(Source):
    """The ready pods of an InferencePool; a new one starts from what is known of the others.

    Args:
        kind: of the engines whose pods have no label that tells it.
    """

    def __init__(self, server: ApiServer, name: str, kind: str = DETECTED) -> None:
        self._server = server
        self._name = name
        self._kind = kind
        self._found: Found = lambda _: None
        self._pods: asyncio.Task[None] | None = None
        self._spec: Any = None

    async def run(self, found: Found) -> None:
        self._found = found
        pool = f"/apis/{POOL_GROUP}/namespaces/{quote(self._server.namespace)}/inferencepools"
        try:
            await _follow(self._server, pool, {"fieldSelector": f"metadata.name={self._name}"}, self._pool_changed)
        finally:
            self._stop_pods()

    def _pool_changed(self, pools: Sequence[Mapping[str, Any]]) -> None:
        spec = pools[0].get("spec") if pools else None
        if spec == self._spec and self._pods is not None:
            return
        self._spec = spec
        self._stop_pods()
        try:
            labels = {str(key): str(value) for key, value in (spec or {})["selector"]["matchLabels"].items()}
            ports = [int(port["number"]) for port in (spec or {})["targetPorts"]]
        except (KeyError, TypeError, ValueError, AttributeError):
            log.warning("there is no InferencePool %r in %r, or it selects nothing", self._name, self._server.namespace)
            self._found(())
            return
        selector = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
        path = f"/api/v1/namespaces/{quote(self._server.namespace)}/pods"
        self._pods = asyncio.get_running_loop().create_task(
            _follow(
                self._server,
                path,
                {"labelSelector": selector},
                lambda pods: self._found(
                    [
                        replace(one, machine_kind=self._name)
                        for pod in pods
                        for one in endpoints_of(pod, ports, self._kind)
                    ]
                ),
            )
        )

    def _stop_pods(self) -> None:
        if self._pods is not None:
            self._pods.cancel()
            self._pods = None


def endpoints_of(pod: Mapping[str, Any], ports: Sequence[int], kind: str = DETECTED) -> list[Endpoint]:
    """The endpoints of a pod: one for each port, if it is ready and not about to end."""
    try:
        metadata, status = pod["metadata"], pod["status"]
        if metadata.get("deletionTimestamp"):
            return []
        if not any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions", ())):
            return []
        address, name = str(status["podIP"]), str(metadata["name"])
        labels = metadata.get("labels") or {}
        told = next((str(labels[label]) for label in ENGINE_LABELS if label in labels), "")
    except (KeyError, TypeError, AttributeError):
        return []
    found = ENGINES.get(told.lower().replace(".", "").replace("_", "").replace("-", ""), kind)
    host = f"[{address}]" if ":" in address else address
    several = len(ports) > 1
    try:
        return [
            Endpoint(checked_address(f"{host}:{port}"), found, f"{name}-{port}" if several else name) for port in ports
        ]
    except BadEndpoint:
        return []


async def _follow(
    server: ApiServer, path: str, query: Mapping[str, str], changed: Callable[[Sequence[Mapping[str, Any]]], None]
) -> None:
    """List objects, and watch them; ``changed`` is told all of them each time. Until it is cancelled."""
    objects: dict[str, Mapping[str, Any]] = {}
    version, failures = "", 0
    while True:
        watched_s, problem = 0.0, ""
        try:
            if not version:
                objects, version = await _listed(server, path, query)
                changed(list(objects.values()))
            began_s = monotonic()
            try:
                version = await _watched(server, path, query, objects, version, changed) if version else ""
            finally:
                watched_s = monotonic() - began_s
        except (Failed, ConnectFailed, ConnectionLost, TimeoutError) as error:
            version, problem = "", str(error)
        except Exception as error:  # whatever it answers, it is asked again
            version, problem = "", f"{type(error).__name__}: {error}"
            log.exception("the API server answers with something unknown")
        if watched_s >= LASTING_S:
            failures = 0
            if not problem:
                continue
        pause_s = PAUSES_S[min(failures, len(PAUSES_S) - 1)]
        failures += 1
        log.warning("the API server is asked again in %g s: %s", pause_s, problem or "its watch ended at once")
        await asyncio.sleep(pause_s)


async def _listed(server: ApiServer, path: str, query: Mapping[str, str]) -> tuple[dict[str, Mapping[str, Any]], str]:
    """The objects by their identifiers, and the version of that list.

    Raises:
        Failed, ConnectFailed, ConnectionLost, TimeoutError: they can't be had.
    """
    client = _client(server)
    try:
        status, body = await client.fetch(
            "GET", _target(path, query), timeout_s=ANSWER_TIMEOUT_S, max_bytes=MAX_LIST_BYTES
        )
        document = _decoded(body)
        if status != 200:
            raise Failed(f"{path} answers {status}: {document.get('message', '')}")
        return {_key(one): one for one in document.get("items") or ()}, _version(document)
    finally:
        client.close()


async def _watched(
    server: ApiServer,
    path: str,
    query: Mapping[str, str],
    objects: dict[str, Mapping[str, Any]],
    version: str,
    changed: Callable[[Sequence[Mapping[str, Any]]], None],
) -> str:
    """Keep ``objects`` up to date for as long as a watch lasts. Returns the version that it got to; empty where all is
    to be listed again.

    Raises:
        Failed, ConnectFailed, ConnectionLost, TimeoutError: it broke off.
    """
    watch = {**query, "watch": "1", "resourceVersion": version, "allowWatchBookmarks": "true"}
    async with aclosing(_events(server, _target(path, {**watch, "timeoutSeconds": str(WATCH_S)}))) as events:
        async for event in events:
            kind, one = event.get("type"), event.get("object") or {}
            if kind == "ERROR":
                if one.get("code") == GONE:
                    return ""
                raise Failed(f"watching {path}: {one.get('message', one)}")
            version = _version(one) or version
            if kind in ("ADDED", "MODIFIED"):
                objects[_key(one)] = one
            elif kind == "DELETED":
                objects.pop(_key(one), None)
            if kind != "BOOKMARK":
                changed(list(objects.values()))
    return version


async def _events(server: ApiServer, target: str) -> AsyncGenerator[dict[str, Any], None]:
    client = _client(server)
    try:
        async with await client.send("GET", target, _headers(server), within_s=ANSWER_TIMEOUT_S) as answer:
            if answer.status != 200:
                document = _decoded(await answer.read_all())
                if answer.status == GONE:
                    yield {"type": "ERROR", "object": {"code": GONE}}
                    return
                raise Failed(f"{target.partition('?')[0]} answers {answer.status}: {document.get('message', '')}")
            rest = b""
            while True:
                async with asyncio.timeout(WATCH_S + ANSWER_TIMEOUT_S):
                    piece = await answer.read()
                if not piece:
                    return
                *lines, rest = (rest + piece).split(b"\n")
                if len(rest) > MAX_LINE_BYTES:
                    raise Failed(f"an event has more than {MAX_LINE_BYTES:,} bytes")
                for line in lines:
                    if line.strip():
                        yield _decoded(line)
    finally:
        client.close()


def _client(server: ApiServer) -> Client:
    """
    Raises:
        Failed: the file of the authority or of the token can't be read.
    """
    try:
        return Client(server.url, fetch_headers=_headers(server), authority=server.authority)
    except OSError as error:
        raise Failed(f"{error.filename or server.authority}: {error.strerror or error}") from error


def _headers(server: ApiServer) -> list[tuple[bytes, bytes]]:
    token = server.token.read_text().strip() if server.token else None
    return [(b"accept", b"application/json"), *bearer(token)]


def _target(path: str, query: Mapping[str, str]) -> str:
    return f"{path}?" + "&".join(f"{key}={quote(value, safe='')}" for key, value in query.items())


def _key(one: Mapping[str, Any]) -> str:
    return str((one.get("metadata") or {}).get("uid") or (one.get("metadata") or {}).get("name"))


def _version(one: Mapping[str, Any]) -> str:
    return str((one.get("metadata") or {}).get("resourceVersion") or "")


def _decoded(body: bytes) -> dict[str, Any]:
    """
    Raises:
        Failed: it is no JSON object.
    """
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Failed(f"the API server answers with something that is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise Failed("the API server answers with something that is no object")
    return document
