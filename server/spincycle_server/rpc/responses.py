"""Serializes the responses of gRPC calls, within the limits of those who receive them."""

from __future__ import annotations

from google.protobuf.message import Message

from spincycle_grpc.channels import MAX_MESSAGE_BYTES
from spincycle_grpc.errors import FailedPreconditionError
from spincycle_server.identity import READ_BY_SERVERS
from spincycle_server.rpc.methods import Method
from spincycle_server.shared_messages import SharedMessage

MAX_RESPONSE = 4 * 1024 * 1024
"""The maximum size in bytes of a response to a user. gRPC clients accept as much by default."""


def serialized(method: Method, response: Message | SharedMessage) -> bytes:
    """Returns the bytes of a response.

    Raises:
        FailedPreconditionError: The response is too large. Reason: RESPONSE_TOO_LARGE.
    """
    data = response.encoded(_bytes_of) if isinstance(response, SharedMessage) else _bytes_of(response)
    if len(data) > MAX_RESPONSE:
        is_for_servers = method.is_reserved or method.descriptor.full_name in READ_BY_SERVERS
        limit = MAX_MESSAGE_BYTES if is_for_servers else MAX_RESPONSE
        if len(data) > limit:
            raise FailedPreconditionError(
                f"the response has {len(data)} bytes, and a gRPC message at most {limit}: ask for less, get "
                "the job chain with GetJobChain, or call the method over HTTP",
                reason="RESPONSE_TOO_LARGE",
            )
    return data


def _bytes_of(message: Message) -> bytes:
    data: bytes = message.SerializeToString()
    return data
