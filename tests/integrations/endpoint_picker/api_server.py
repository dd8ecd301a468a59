"""A Kubernetes API server, as far as it lists and watches pods and InferencePools: the same bytes on the wire."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.fake_engine import HOST

NAMESPACE = "models"
POOLS = f"/apis/inference.networking.k8s.io/v1/namespaces/{NAMESPACE}/inferencepools"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"


def pod(
    name: str, ip: str, labels: dict[str, str], *, is_ready: bool = True, deleted: str | None = None
) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "uid": f"uid-{name}", "labels": labels}
    if deleted:
        metadata["deletionTimestamp"] = deleted
    ready = {"type": "Ready", "status": "True" if is_ready else "False"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "status": {"phase": "Running", "podIP": ip, "conditions": [{"type": "Initialized", "status": "True"}, ready]},
    }


def pool(name: str, labels: dict[str, str], *ports: int) -> dict[str, Any]:
    return {
        "apiVersion": "inference.networking.k8s.io/v1",
        "kind": "InferencePool",
        "metadata": {"name": name, "uid": f"uid-{name}"},
        "spec": {
            "selector": {"matchLabels": labels},
            "targetPorts": [{"number": port} for port in ports],
            "endpointPickerRef": {"name": "picker", "port": {"number": 9002}},
        },
    }


class ApiServer:
    """Objects with versions, and who watches them."""

    def __init__(self) -> None:
        self.version = 100
        self.objects: dict[str, dict[str, dict[str, Any]]] = {POOLS: {}, PODS: {}}
        """By path, by name."""
        self.asked: list[tuple[str, dict[str, str]]] = []
        """Targets, and their headers."""
        self.refuse_with = 0
        """The status of all answers, while it is not 0."""
        self.odd: Any = None
        """In place of lists, while there is something."""
        self.oldest_version = 0
        """From which on can be watched."""
        self._watching: dict[asyncio.StreamWriter, tuple[str, dict[str, str]]] = {}
        self.url = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator["ApiServer"]:
        server = await asyncio.start_server(self._serve, HOST, 0)
        self.url = f"http://{HOST}:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            self.cut()

    def put(self, path: str, one: dict[str, Any]) -> None:
        """Create or replace an object, and tell who watches."""
        self.version += 1
        one = one | {"metadata": one["metadata"] | {"resourceVersion": str(self.version)}}
        name = one["metadata"]["name"]
        kind = "MODIFIED" if name in self.objects[path] else "ADDED"
        self.objects[path][name] = one
        self._tell(path, {"type": kind, "object": one})

    def remove(self, path: str, name: str) -> None:
        self.version += 1
        self._tell(path, {"type": "DELETED", "object": self.objects[path].pop(name)})

    def bookmark(self, path: str) -> None:
        """Tell who watches that nothing happened up to now."""
        self.version += 1
        metadata = {"resourceVersion": str(self.version), "creationTimestamp": None}
        self._tell(path, {"type": "BOOKMARK", "object": {"kind": "Pod", "apiVersion": "v1", "metadata": metadata}})

    def cut(self) -> None:
        """Break all watches off."""
        for writer in list(self._watching):
            writer.transport.abort()
        self._watching.clear()

    def end(self) -> None:
        """End all watches in good order, as the server does after their time."""
        for writer in list(self._watching):
            writer.write(b"0\r\n\r\n")
        self._watching.clear()

    @property
    def watches(self) -> int:
        return len(self._watching)

    def _tell(self, path: str, event: dict[str, Any]) -> None:
        for writer, (watched, query) in self._watching.items():
            if watched == path and (event["type"] == "BOOKMARK" or _fits(event["object"], query)):
                line = json.dumps(event).encode() + b"\n"
                half = len(line) // 2  # chunks are no lines
                for part in (line[:half], line[half:]):
                    writer.write(b"%x\r\n%b\r\n" % (len(part), part))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head.decode().strip().split("\r\n")
                target = first.split(" ")[1]
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
                self.asked.append((target, headers))
                parts = urlsplit(target)
                query = {name: values[0] for name, values in parse_qs(parts.query).items()}
                await self._answer(writer, parts.path, query)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, path: str, query: dict[str, str]) -> None:
        if self.refuse_with:
            status = {"kind": "Status", "status": "Failure", "message": "pods is forbidden", "code": self.refuse_with}
            _write(writer, self.refuse_with, status)
        elif query.get("watch"):
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
            if int(query["resourceVersion"]) < self.oldest_version:
                gone = {"kind": "Status", "code": 410, "message": "too old resource version", "reason": "Expired"}
                line = json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n"
                writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(line), line))
            else:
                self._watching[writer] = path, query
        elif self.odd is not None:
            _write(writer, 200, self.odd)
        else:
            items = [one for one in self.objects[path].values() if _fits(one, query)]
            _write(writer, 200, {"metadata": {"resourceVersion": str(self.version)}, "items": items})
        await writer.drain()


def _write(writer: asyncio.StreamWriter, status: int, document: Any) -> None:
    body = json.dumps(document).encode()
    writer.write(
        b"HTTP/1.1 %d Some Reason\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
        % (status, len(body), body)
    )


def _fits(one: dict[str, Any], query: dict[str, str]) -> bool:
    name = query.get("fieldSelector", "").removeprefix("metadata.name=")
    labels = dict(pair.split("=") for pair in query.get("labelSelector", "").split(",") if pair)
    has = one["metadata"].get("labels", {})
    return name in ("", one["metadata"]["name"]) and set(labels.items()) <= set(has.items())
