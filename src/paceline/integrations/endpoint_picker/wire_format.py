"""The messages of Envoy's external processing, version 3, from and to the words of ``messages.py``
(https://www.envoyproxy.io/docs/envoy/latest/api-v3/service/ext_proc/v3/external_processor.proto)."""

from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.extensions.filters.http.ext_proc.v3 import processing_mode_pb2
from envoy.service.ext_proc.v3 import external_processor_pb2

from paceline.integrations.endpoint_picker.messages import (
    Answer,
    BodyMode,
    Go,
    GoTrailers,
    Piece,
    Refuse,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
    Said,
)
from paceline.wire.headers import Headers

DESTINATION = "x-gateway-destination-endpoint"
"""Header, and key of the metadata, in which the endpoints are told."""
DESTINATION_METADATA = "envoy.lb"
SUBSET, SUBSET_METADATA = "x-gateway-destination-endpoint-subset", "envoy.lb.subset_hint"
SERVED = "x-gateway-destination-endpoint-served"

_pb: Any = external_processor_pb2
_core: Any = base_pb2
_modes: Any = processing_mode_pb2
_OVERWRITE = _core.HeaderValueOption.HeaderAppendAction.Value("OVERWRITE_IF_EXISTS_OR_ADD")
_MODES = {
    _modes.ProcessingMode.NONE: BodyMode.NONE,
    _modes.ProcessingMode.STREAMED: BodyMode.STREAMED,
    _modes.ProcessingMode.BUFFERED: BodyMode.BUFFERED,
    _modes.ProcessingMode.BUFFERED_PARTIAL: BodyMode.BUFFERED,
    _modes.ProcessingMode.FULL_DUPLEX_STREAMED: BodyMode.DUPLEX,
}


def read(message: Any) -> Said | None:
    """What a ``ProcessingRequest`` says; ``None`` for what is not known here."""
    kind = message.WhichOneof("request")
    if kind == "request_headers":
        said = message.request_headers
        # Gateways that do not tell their modes are taken to have those that the protocol asks for.
        told = message.protocol_config if message.HasField("protocol_config") else None
        return RequestHeaders(
            headers=_headers(said.headers),
            ends=said.end_of_stream,
            request_mode=_MODES.get(told.request_body_mode, BodyMode.NONE) if told else BodyMode.DUPLEX,
            response_mode=_MODES.get(told.response_body_mode, BodyMode.NONE) if told else BodyMode.DUPLEX,
            subset=_subset(message),
        )
    if kind == "request_body":
        return RequestBody(message.request_body.body, message.request_body.end_of_stream)
    if kind == "request_trailers":
        return RequestTrailers()
    if kind == "response_headers":
        said = message.response_headers
        return ResponseHeaders(_headers(said.headers), said.end_of_stream, _served(message))
    if kind == "response_body":
        return ResponseBody(message.response_body.body, message.response_body.end_of_stream)
    return ResponseTrailers() if kind == "response_trailers" else None


def written(answer: Answer) -> Any:
    """A ``ProcessingResponse``."""
    match answer:
        case Go():
            return _go(answer)
        case Piece(is_request=is_request, data=data, ends=ends):
            streamed = _pb.StreamedBodyResponse(body=data, end_of_stream=ends)
            body = _pb.BodyResponse(
                response=_pb.CommonResponse(body_mutation=_pb.BodyMutation(streamed_response=streamed))
            )
            return _pb.ProcessingResponse(**{"request_body" if is_request else "response_body": body})
        case GoTrailers(is_request=is_request):
            return _pb.ProcessingResponse(
                **{"request_trailers" if is_request else "response_trailers": _pb.TrailersResponse()}
            )
        case Refuse():
            return _refuse(answer)


def _go(answer: Go) -> Any:
    common = _pb.CommonResponse()
    endpoints = ",".join(answer.endpoints)
    headers = [*answer.set_headers, *([(DESTINATION.encode(), endpoints.encode())] if endpoints else [])]
    common.header_mutation.set_headers.extend(_set(headers))
    common.header_mutation.remove_headers.extend(name.decode("latin-1") for name in answer.remove_headers)
    if endpoints:
        common.clear_route_cache = True  # the route may depend on the header
    if answer.body is not None:
        common.body_mutation.body = answer.body
    side = "request" if answer.is_request else "response"
    if answer.is_body:
        response = _pb.ProcessingResponse(**{f"{side}_body": _pb.BodyResponse(response=common)})
    else:
        response = _pb.ProcessingResponse(**{f"{side}_headers": _pb.HeadersResponse(response=common)})
    if endpoints:
        response.dynamic_metadata.get_or_create_struct(DESTINATION_METADATA)[DESTINATION] = endpoints
    return response


def _refuse(answer: Refuse) -> Any:
    response = _pb.ImmediateResponse(body=answer.body, details="paceline_" + str(answer.status))
    response.status.code = answer.status
    headers = [(b"content-type", answer.content_type)]
    if answer.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % max(1, round(answer.retry_after_s))))
    response.headers.set_headers.extend(_set(headers))
    return _pb.ProcessingResponse(immediate_response=response)


def _set(headers: Headers) -> list[Any]:
    return [
        _core.HeaderValueOption(
            header=_core.HeaderValue(key=name.decode("latin-1"), raw_value=value), append_action=_OVERWRITE
        )
        for name, value in headers
    ]


def _headers(headers: Any) -> Headers:
    """Older gateways tell values as text."""
    return [(one.key.lower().encode(), one.raw_value or one.value.encode()) for one in headers.headers]


def _subset(message: Any) -> tuple[str, ...] | None:
    """The endpoints to pick from, as a list or in one text; ``None`` where nothing is said of them."""
    value = _metadata(message, SUBSET_METADATA, SUBSET)
    if value is None:
        return None
    if value.HasField("list_value"):
        return tuple(one.string_value.strip() for one in value.list_value.values if one.string_value)
    return tuple(filter(None, (one.strip() for one in value.string_value.split(","))))


def _served(message: Any) -> str | None:
    value = _metadata(message, DESTINATION_METADATA, SERVED)
    return None if value is None else value.string_value or None


def _metadata(message: Any, namespace: str, key: str) -> Any:
    """A value that the gateway tells of the exchange; ``None`` where it does not."""
    found = message.metadata_context.filter_metadata
    if namespace not in found or key not in found[namespace].fields:
        return None
    return found[namespace].fields[key]
