"""gRPC servers in the process of a test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor import ServiceDescriptor

from spincycle_grpc.v1 import request_manager_pb2, runner_reports_pb2
from spincycle_server.identity import Authentication
from spincycle_server.rpc import Gate, GrpcServer, MethodTable

REQUEST_MANAGER = request_manager_pb2.DESCRIPTOR.services_by_name["RequestManager"]
RUNNER_REPORTS = runner_reports_pb2.DESCRIPTOR.services_by_name["RunnerReports"]


@asynccontextmanager
async def serving(
    service: ServiceDescriptor,
    servicer: object,
    *,
    gate: Gate | None = None,
    authentication: Authentication | None = None,
    **options: Any,
) -> AsyncIterator[tuple[GrpcServer, str]]:
    """Runs a server of one service, with options of GrpcServer. Yields the server and its address."""
    table = MethodTable(service, servicer, gate or Gate(1000), authentication)
    server = GrpcServer([table], "127.0.0.1:0", **options)
    await server.start()
    try:
        yield server, f"127.0.0.1:{server.port}"
    finally:
        await server.stop(0)


async def rpc_error(call: Awaitable[object]) -> grpc.aio.AioRpcError:
    """Returns the error with which a call fails."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value
