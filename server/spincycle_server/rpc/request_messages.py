"""Parses the requests of gRPC calls, within limits."""

from __future__ import annotations

from typing import Any

from google.api import annotations_pb2
from google.protobuf.message import DecodeError, Message

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_server.large_work import LARGE, check_large_room, run_large
from spincycle_server.rpc.input_limits import InputLimits
from spincycle_server.rpc.message_counting import check_message
from spincycle_server.rpc.methods import Method

MAX_WITHOUT_BODY = 65_536
"""The maximum size in bytes of a request that has no body over HTTP. There, the head has the same limit."""


async def read_request(method: Method, data: bytes, limits: InputLimits) -> Message:
    """Parses the request of a unary method. Large requests are parsed in a thread.

    Requests of other servers have no limits besides that of gRPC, because they carry job chains.

    Args:
        method: The method.
        data: The serialized request.
        limits: The limits of users' requests.

    Raises:
        InvalidArgumentError: The request exceeds a limit, or is not a valid message. Reasons:
            MESSAGE_TOO_LARGE, BAD_MESSAGE, and those of `check_message`.
        ResourceExhaustedError: There is no room for the request, or too many large requests wait to be
            parsed. Reasons: TOO_MANY_BODIES, TOO_MANY_LARGE_MESSAGES.
    """
    if method.is_reserved:
        return parsed(method.request_type, data)
    limit = limits.max_body if len(data) <= MAX_WITHOUT_BODY or _has_body(method) else MAX_WITHOUT_BODY
    if len(data) > limit:
        raise InvalidArgumentError(
            f"the request has {len(data)} bytes: at most {limit} are allowed", reason="MESSAGE_TOO_LARGE"
        )
    if len(data) <= LARGE:
        return _checked(method.request_type, data, limits.max_values)
    check_large_room()
    with limits.bodies.share() as share:
        share.hold(len(data))
        return await run_large(_checked, method.request_type, data, limits.max_values)


def parsed(request_type: type[Message], data: bytes) -> Message:
    """Parses a message.

    Raises:
        InvalidArgumentError: The bytes are not a valid message of the type. Reason: BAD_MESSAGE.
    """
    try:
        return request_type.FromString(data)
    except DecodeError as error:
        raise InvalidArgumentError(
            f"the request is not a valid {request_type.DESCRIPTOR.full_name}: encode it by the .proto file",
            reason="BAD_MESSAGE",
        ) from error


def _checked(request_type: type[Message], data: bytes, max_values: int) -> Message:
    descriptor: Any = request_type.DESCRIPTOR
    check_message(descriptor, data, max_values)
    return parsed(request_type, data)


def _has_body(method: Method) -> bool:
    return bool(method.descriptor.GetOptions().Extensions[annotations_pb2.http].body)
