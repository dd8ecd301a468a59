"""The gRPC service that gateways call, with its health as orchestrators ask for it."""

import logging
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import grpc.aio
from envoy.service.ext_proc.v3 import external_processor_pb2_grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from paceline.integrations.endpoint_picker.picking import Picker
from paceline.integrations.endpoint_picker.stream import OutOfTurn, Stream
from paceline.integrations.endpoint_picker.wire_format import read, written

SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"
READINESS, LIVENESS = "readiness", "liveness"
"""Names of services whose health is told, by the endpoint picker protocol."""
MAX_MESSAGE_BYTES = 256 * 1024 * 1024
"""Of a body that is handed over at once, which the gateway itself bounds."""

log = logging.getLogger("paceline.integrations")
_health: Any = health
_health_pb: Any = health_pb2


class Certificate(NamedTuple):
    """Files in PEM."""

    certificate: Path
    key: Path
    client_authority: Path | None = None
    """Whose clients alone may ask; ``None`` for all."""


class CannotListen(Exception):
    """The address is taken, or not ours."""


class PickerServer:
    """Answers gateways.

    Args:
        address: ``0.0.0.0:9002``.
        certificate: for TLS; without one, connections are plain.
    """

    def __init__(self, picker: Picker, address: str, certificate: Certificate | None = None) -> None:
        self._picker = picker
        self._address = address
        self._certificate = certificate
        self._server: Any = None
        self._health: Any = _health.aio.HealthServicer()
        self.port = 0
        """Where it listens, once it is started."""

    async def start(self) -> None:
        """
        Raises:
            CannotListen: the address is not to be had.
            OSError: a file of the certificate can't be read.
        """
        options = (
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.so_reuseport", 0),  # else a second one would start beside the first, and take half of its calls
        )
        self._server = grpc.aio.server(options=options)
        external_processor_pb2_grpc.add_ExternalProcessorServicer_to_server(_Service(self._picker), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        await self._tell(LIVENESS, True)
        await self.tell_health()
        try:
            self.port = self._bind()
        except RuntimeError as error:
            raise CannotListen(f"can't listen on {self._address}: {error}") from error
        await self._server.start()

    async def tell_health(self) -> None:
        """To be called whenever it may have changed whether an endpoint is up."""
        for service in ("", READINESS, SERVICE):
            await self._tell(service, self._picker.is_ready)

    async def stop(self, grace_s: float) -> None:
        """Take no more, and let what runs finish for so long."""
        if self._server is not None:
            await self._health.enter_graceful_shutdown()
            await self._server.stop(grace_s)

    def _bind(self) -> int:
        if self._certificate is None:
            port: int = self._server.add_insecure_port(self._address)
            return port
        pair = (self._certificate.key.read_bytes(), self._certificate.certificate.read_bytes())
        authority = self._certificate.client_authority
        credentials = grpc.ssl_server_credentials(
            [pair], authority.read_bytes() if authority else None, require_client_auth=authority is not None
        )
        secure: int = self._server.add_secure_port(self._address, credentials)
        return secure

    async def _tell(self, service: str, is_well: bool) -> None:
        status = _health_pb.HealthCheckResponse
        await self._health.set(service, status.SERVING if is_well else status.NOT_SERVING)


class _Service(external_processor_pb2_grpc.ExternalProcessorServicer):
    def __init__(self, picker: Picker) -> None:
        self._picker = picker

    async def Process(self, _: Any, context: Any) -> None:  # noqa: N802 - its name in the protocol
        """One call for each exchange. It is read and written as messages come, which is quicker than by iterators."""
        stream = Stream(self._picker)
        try:
            while (message := await context.read()) is not grpc.aio.EOF:
                if (said := read(message)) is not None:
                    for answer in await stream.take(said):
                        await context.write(written(answer))
        except OutOfTurn as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        finally:
            stream.close()
