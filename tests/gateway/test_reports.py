"""Reports over HTTP with values that no database column can store are refused and change nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from spincycle_grpc.v1.state_pb2 import STATE_COMPLETE
from tests.gateway.wire import JSON, Connection, request

ENTRY = {"jobId": "aaaa", "try": 1, "name": "n", "type": "t", "state": STATE_COMPLETE}
FINISH = {"state": STATE_COMPLETE}


@pytest.mark.parametrize(
    ("method", "path", "body", "word"),
    [
        ("POST", "log", {**ENTRY, "jobId": ""}, "jobId"),
        ("POST", "log", {**ENTRY, "jobId": "aaaaa"}, "jobId"),
        ("POST", "log", {**ENTRY, "jobId": "\u00e4\u00e4"}, "jobId"),
        ("POST", "log", {**ENTRY, "try": 0}, "try"),
        ("POST", "log", {**ENTRY, "try": 2**15}, "try"),
        ("POST", "log", {**ENTRY, "state": 8}, "state"),
        ("POST", "log", {**ENTRY, "state": -1}, "state"),
        ("POST", "log", {**ENTRY, "type": "t" * 76}, "type"),
        ("POST", "log", {**ENTRY, "type": "t\0"}, "type"),
        ("PUT", "progress", {"requestId": "<id>", "finishedJobs": 2**31}, "finishedJobs"),
        ("PUT", "finish", {**FINISH, "finishedJobs": 2**64 - 1}, "finishedJobs"),
        ("PUT", "finish", {**FINISH, "finishedAt": "9999-01-01T00:00:00Z"}, "finishedAt"),
        ("PUT", "finish", {**FINISH, "finishedAt": "0001-01-01T00:00:00Z"}, "finishedAt"),
        ("PUT", "suspend", {"requestId": "<id>", "jobChain": {"finishedJobs": 2**31}}, "finishedJobs"),
    ],
)
def test_values_that_cannot_be_stored_are_refused(
    manager: str, method: str, path: str, body: dict[str, Any], word: str
) -> None:
    with Connection(manager) as connection:
        connection.send(request("POST", "/api/v1/requests", JSON, body=b'{"type":"diamond"}'))
        made = json.loads(connection.answer().body)["id"]
        data = json.dumps(body).replace("<id>", made).encode()
        connection.send(request(method, f"/api/v1/requests/{made}/{path}", JSON, body=data))
        answer = connection.answer()
        error = json.loads(answer.body)
        assert (answer.status, error["httpStatus"], error["requestId"]) == (400, 400, made)
        assert f": {word} must" in error["message"]
        connection.send(request("GET", f"/api/v1/requests/{made}"))
        found = json.loads(connection.answer().body)
        assert (found["state"], found["finishedJobs"]) == (1, 0)
        connection.send(request("GET", f"/api/v1/requests/{made}/log"))
        assert json.loads(connection.answer().body) == []


def test_the_largest_values_that_can_be_stored_are_accepted(manager: str) -> None:
    with Connection(manager) as connection:
        connection.send(request("POST", "/api/v1/requests", JSON, body=b'{"type":"diamond"}'))
        made = json.loads(connection.answer().body)["id"]
        entry = json.dumps({**ENTRY, "try": 2**15 - 1, "type": "t" * 75, "exit": -(2**63)}).encode()
        connection.send(request("POST", f"/api/v1/requests/{made}/log", JSON, body=entry))
        answer = connection.answer()
        assert (answer.status, json.loads(answer.body)["exit"]) == (201, -(2**63))
        progress = json.dumps({"requestId": made, "finishedJobs": 2**31 - 1}).encode()
        connection.send(request("PUT", f"/api/v1/requests/{made}/progress", JSON, body=progress))
        assert connection.answer().status == 200
