"""Overload: calls over a limit are refused with a reason, and all accepted requests end."""

from __future__ import annotations

import concurrent.futures
import contextlib
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status

from spincycle_grpc.state import State
from spincycle_grpc.v1.request_manager_pb2 import CreateRequest
from spincycle_grpc.v1.request_manager_pb2_grpc import RequestManagerStub
from tests.e2e.processes import ServerProcess
from tests.e2e.test_leases import Machines, create
from tests.e2e.waiting import eventually
from tests.limits import ANSWER

LEASE_TROUBLES = ("lease", "reporting interrupted", "request taken over", "runner does not have")


@pytest.fixture
def stack() -> Any:
    with contextlib.ExitStack() as opened:
        yield opened


def assert_no_lease_lapsed(*servers: ServerProcess) -> None:
    said = [event.get("message", "") for server in servers for event in server.events]
    assert not [text for text in said if any(trouble in text for trouble in LEASE_TROUBLES)]


def all_complete(http: httpx.Client, ids: list[str]) -> bool:
    found = {one["id"]: one["state"] for one in http.get("/api/v1/requests").json()}
    assert set(ids) <= set(found)
    assert not {State.FAIL, State.STOPPED} & {State(found[one]) for one in ids}
    return all(found[one] == State.COMPLETE for one in ids)


def test_pending_requests_are_dispatched_when_a_full_runner_has_room(
    tmp_path: Path, stack: contextlib.ExitStack
) -> None:
    # Only the ends of chains can trigger the next dispatch: the resume interval is an hour.
    machines = Machines(
        tmp_path,
        stack,
        SPINCYCLE_RESUME_INTERVAL="1h",
        SPINCYCLE_JOB_RUNNER_LEASE="10s",
        SPINCYCLE_JOB_RUNNER_MAX_CHAINS="3",
    )
    manager = machines.start_manager()
    manager.wait_for("listening")
    runner = machines.start_runner()
    manager.wait_for("runner reports")
    http = machines.http()
    ids = [create(http, "row", ms="1") for _ in range(60)]
    eventually(lambda: all_complete(http, ids))
    names = [name for name, event in machines.events() if event == "COMPLETE"]
    assert len(names) == 3 * len(ids)  # Each job ran once, although the runner refused many chains at first.
    assert_no_lease_lapsed(manager, runner)


def test_creates_beyond_the_limit_of_waiting_requests_are_refused(
    tmp_path: Path, stack: contextlib.ExitStack
) -> None:
    machines = Machines(tmp_path, stack, SPINCYCLE_SERVER_MAX_WAITING="5")
    manager = machines.start_manager()
    manager.wait_for("listening")
    http = machines.http()
    ids = [create(http, "row", ms="1") for _ in range(5)]
    refused = http.post("/api/v1/requests", json={"type": "row", "args": {"ms": "1"}})
    assert refused.status_code == 429
    assert refused.headers["Retry-After"] == "1"
    with grpc.insecure_channel(manager.address("request-manager", "grpc")) as channel:
        with pytest.raises(grpc.RpcError) as failed:
            RequestManagerStub(channel).Create(CreateRequest(type="row"), timeout=ANSWER)
        call: Any = failed.value
        status = rpc_status.from_call(call)
    assert call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    info = ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.reason == "TOO_MANY_WAITING"
    manager.wait_for("calls refused")
    machines.start_runner()
    eventually(lambda: all_complete(http, ids))
    again = create(http, "row", ms="1")
    eventually(lambda: all_complete(http, [again]))


def test_calls_beyond_the_limit_are_refused_but_reports_are_not(
    tmp_path: Path, stack: contextlib.ExitStack
) -> None:
    machines = Machines(tmp_path, stack, SPINCYCLE_SERVER_MAX_REQUESTS="1")
    manager = machines.start_manager()
    manager.wait_for("listening")
    runner = machines.start_runner()
    manager.wait_for("runner reports")
    http = machines.http()

    def one(_: int) -> httpx.Response:
        return http.post("/api/v1/requests", json={"type": "row", "args": {"ms": "1"}})

    answers: list[httpx.Response] = []

    def some_of_both() -> bool:
        with concurrent.futures.ThreadPoolExecutor(16) as users:
            answers.extend(users.map(one, range(64)))
        return {answer.status_code for answer in answers} >= {201, 429}

    eventually(some_of_both)
    assert {answer.status_code for answer in answers} == {201, 429}
    assert all("Retry-After" in answer.headers for answer in answers if answer.status_code == 429)
    ids = [answer.json()["id"] for answer in answers if answer.status_code == 201]
    eventually(lambda: all_complete(http, ids))
    assert_no_lease_lapsed(manager, runner)
