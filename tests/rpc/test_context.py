"""The context of a call, and the size of its request."""

from __future__ import annotations

from spincycle_grpc.v1.request_manager_pb2 import CreateRequest
from spincycle_server.identity import Credentials, Identity
from spincycle_server.large_work import LARGE
from spincycle_server.rpc import CallContext, ReceivedRequest


def test_a_small_request_finds_out_its_own_size() -> None:
    request, received = CreateRequest(type="nap"), ReceivedRequest()
    for size in (0, 3, LARGE):
        received.size = size
        assert received.size_of(request) == request.ByteSize()


def test_a_large_request_has_the_size_of_the_received_bytes() -> None:
    received = ReceivedRequest()
    received.size = LARGE + 1
    assert received.size_of(CreateRequest()) == LARGE + 1


def test_the_context_of_an_identified_caller_is_otherwise_the_same() -> None:
    received = ReceivedRequest()
    received.size = 7
    context = CallContext(
        transport="http", credentials=Credentials(peer="here"), is_throttled=True, received=received
    )
    known = Identity(method="token")
    assert context.of(known) == context._replace(identity=known)
