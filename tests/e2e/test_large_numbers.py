"""Whole numbers in args that a double cannot hold, over both transports of a real server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from spincycle_grpc.rpc_errors import error_from_rpc
from spincycle_grpc.v1.request_manager_pb2 import CreateRequest, PlanRequest
from spincycle_grpc.v1.request_manager_pb2_grpc import RequestManagerStub
from tests.e2e.processes import running
from tests.limits import ANSWER


def test_json_accepts_2_53_exactly_and_grpc_refuses_it(tmp_path: Path) -> None:
    with running("request-manager", "--http=127.0.0.1:0", directory=tmp_path) as server:
        url = f"http://{server.address('request-manager', 'http')}/api/v1/requests"
        for number, status in ((2**53, 201), (2**53 + 1, 400)):
            answer = httpx.post(url, json={"type": "rename", "args": {"host": number}}, timeout=ANSWER)
            assert answer.status_code == status, answer.text
        address = server.address("request-manager", "grpc")
        with grpc.insecure_channel(address) as channel:
            stub: Any = RequestManagerStub(channel)
            for method, request_type in ((stub.Create, CreateRequest), (stub.Plan, PlanRequest)):
                request = request_type(type="rename")
                request.args["host"] = 2**53 + 1
                with pytest.raises(grpc.RpcError) as caught:
                    method(request, timeout=ANSWER)
                error = error_from_rpc(caught.value, address)
                assert (error.reason, error.field) == ("NUMBER_TOO_LARGE", "args.host")
