"""One request from creation to its end: over HTTP, over gRPC with only the stubs, and with spinc."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import httpx
import pytest
from google.protobuf.json_format import MessageToDict, ParseDict

from spincycle_grpc.v1 import request_manager_pb2 as messages
from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.request_manager_pb2_grpc import RequestManagerStub
from tests.e2e.processes import REPOSITORY, ServerProcess, running
from tests.e2e.waiting import eventually, wait_state
from tests.limits import ANSWER, COMMAND, PROCESS_END, REQUEST_END
from tests.ports import free_port
from tests.reference.recordings import exchange, log_multiset, without_ids_and_times


@pytest.fixture(scope="module", params=["one process", "two processes"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A Request Manager with a Job Runner, in one process or in two."""
    directory = tmp_path_factory.mktemp("server")
    if request.param == "one process":
        with running("server", "--http=127.0.0.1:0", directory=directory) as both:
            both.wait_for("runner reports")
            yield both
        return
    with running("request-manager", "--http=127.0.0.1:0", directory=directory) as manager:
        address = manager.address("request-manager", "grpc")
        with running("job-runner", "--http=127.0.0.1:0", f"--rm={address}", directory=directory) as runner:
            manager.wait_for("runner reports")
            runner.wait_for("listening")
            yield manager


def without_progress(body: Any) -> Any:
    """Returns the body of a running request without its progress, which changes all the time."""
    if not isinstance(body, dict):
        return body
    return {key: without_progress(part) for key, part in body.items() if key != "finishedJobs"}


def assert_as_recorded(response: httpx.Response, name: str) -> None:
    recorded = exchange(name)
    assert response.status_code == recorded["status"]
    said, expected = (without_ids_and_times(body) for body in (response.json(), json.loads(recorded["body"])))
    if "running" in name:
        said, expected = without_progress(said), without_progress(expected)
    assert said == expected
    for header in ("Content-Type", "X-Spincycle-Version"):
        assert response.headers[header] == recorded["headers"][header]


def answers_while_it_runs(http: httpx.Client) -> dict[str, httpx.Response] | None:
    """Creates the recorded nap of 1.5 s. Returns the answers up to then, or None if it ended too soon."""
    created = http.post(
        "/api/v1/requests",
        content=b'{"type":"nap","args":{"ms":"1500"}}',
        headers={"Content-Type": "application/json"},
    )
    request_id = created.json()["id"]
    while True:
        running = http.get("/api/v1/status/running")
        got = http.get(f"/api/v1/requests/{request_id}")
        if got.json()["state"] == state_pb2.STATE_COMPLETE:
            return None
        jobs = [job for job in running.json()["jobs"] if job["requestId"] == request_id]
        if jobs and "status" in jobs[0]:  # A job has no status before it runs.
            return {"create": created, "running": running, "get-running": got}


def test_http_answers_as_recorded(http: httpx.Client) -> None:
    answers = eventually(lambda: answers_while_it_runs(http))
    for name, answer in answers.items():
        assert_as_recorded(answer, name)
    request_id = answers["create"].json()["id"]
    assert answers["create"].headers["Location"] == f"/api/v1/requests/{request_id}"
    wait_state(http, request_id, state_pb2.STATE_COMPLETE)
    assert_as_recorded(http.get(f"/api/v1/requests/{request_id}"), "get-finished")
    log = http.get(f"/api/v1/requests/{request_id}/log")
    assert log_multiset(log.json()) == log_multiset(json.loads(exchange("log")["body"]))
    job_id = next(entry["jobId"] for entry in log.json() if entry["type"] == "sleep")
    assert_as_recorded(http.get(f"/api/v1/requests/{request_id}/log/{job_id}"), "log-job")
    assert_as_recorded(http.get(f"/api/v1/requests/{request_id}/job-chain"), "job-chain")


async def test_a_client_needs_only_the_stubs(server: ServerProcess) -> None:
    async with grpc.aio.insecure_channel(server.address("request-manager", "grpc")) as channel:
        manager = RequestManagerStub(channel)
        created = await manager.Create(
            ParseDict({"Type": "nap", "Args": {"ms": "200"}}, messages.CreateRequest()), timeout=ANSWER
        )
        request_id = created.request.id
        assert created.request.state == state_pb2.STATE_PENDING
        assert MessageToDict(created.request.args[0])["Value"] == "200"
        deadline = time.monotonic() + REQUEST_END
        while True:
            answer = await manager.Get(messages.GetRequest(request_id=request_id), timeout=ANSWER)
            if answer.request.state == state_pb2.STATE_COMPLETE:
                break
            assert time.monotonic() < deadline
        assert answer.request.finished_jobs == answer.request.total_jobs == 5
        log = await manager.GetLog(messages.GetLogRequest(request_id=request_id), timeout=ANSWER)
        assert len(log.entries) == 5


def request_ids(http: httpx.Client) -> list[str]:
    return [request["id"] for request in http.get("/api/v1/requests").json()]


def test_a_plan_shows_the_job_chain_and_stores_nothing(http: httpx.Client, server: ServerProcess) -> None:
    before = request_ids(http)
    planned = http.post("/api/v1/requests/plan", json={"type": "nap", "args": {"ms": "5"}})
    assert planned.status_code == 200
    names = sorted(job["name"] for job in planned.json()["JobChain"]["jobs"].values())
    recorded = json.loads(exchange("job-chain")["body"])
    assert names == sorted(job["name"] for job in recorded["jobs"].values())
    assert (planned.json()["id"], planned.json()["state"]) == ("", state_pb2.STATE_PENDING)
    with grpc.insecure_channel(server.address("request-manager", "grpc")) as channel:
        answer = RequestManagerStub(channel).Plan(messages.PlanRequest(type="nap"), timeout=ANSWER)
        assert len(answer.request.job_chain.jobs) == 5
    drawn = spinc(server, "plan", "nap", "ms=5")
    assert drawn.returncode == 0, drawn.stderr
    assert all(name in drawn.stdout for name in ("before", "sleep", "after"))
    assert request_ids(http) == before
    refused = http.post("/api/v1/requests/plan", json={"type": "one-job"})
    assert refused.status_code == 400
    assert "required arg 'out' not set" in refused.json()["message"]


def spinc(server: ServerProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "spincycle_grpc.cli", *arguments],
        env={
            **os.environ,
            "SPINC_ADDR": server.address("request-manager", "grpc"),
            "PYTHONPATH": str(REPOSITORY),
        },
        capture_output=True,
        text=True,
        timeout=COMMAND,
        check=False,
    )


def test_spinc_starts_a_request_and_waits_for_its_end(server: ServerProcess) -> None:
    done = spinc(server, "start", "nap", "ms=300", "--wait")
    assert done.returncode == 0, done.stderr
    assert "COMPLETE" in done.stdout
    failed = spinc(server, "start", "panics", "--wait")
    assert failed.returncode == 1
    assert "FAIL" in failed.stdout + failed.stderr


def test_a_stop_ends_a_running_request(http: httpx.Client, server: ServerProcess) -> None:
    request_id = http.post("/api/v1/requests", json={"type": "nap", "args": {"ms": "60000"}}).json()["id"]
    eventually(lambda: http.get(f"/api/v1/status/running?requestId={request_id}").json()["jobs"])
    assert spinc(server, "stop", request_id).returncode == 0
    stopped = wait_state(http, request_id, state_pb2.STATE_STOPPED)
    assert without_ids_and_times(stopped)["finishedJobs"] == 2
    log = http.get(f"/api/v1/requests/{request_id}/log").json()
    assert log_multiset(log) == log_multiset(json.loads(exchange("log-stopped")["body"]))


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"type": "nosuch"}, 400, "cannot find definition for request: nosuch"),
        ({"type": "one-job"}, 400, "required arg 'out' not set"),
        ({}, 400, "Type is empty, must be a request name"),
        ({"type": "nap", "args": {"ms": 2**60}}, 400, "ms"),
    ],
)
def test_an_invalid_create_gets_the_same_error_over_http_and_with_spinc(
    http: httpx.Client, server: ServerProcess, body: dict[str, Any], status: int, message: str
) -> None:
    response = http.post("/api/v1/requests", json=body)
    assert response.status_code == status
    assert message in response.json()["message"]
    if "type" in body and "args" not in body:
        told = spinc(server, "start", body["type"])
        assert told.returncode not in (0, 1)
        assert told.stdout == ""
        assert len(told.stderr.strip().splitlines()) == 1
        assert "Traceback" not in told.stderr


def test_http_errors_are_as_recorded(http: httpx.Client) -> None:
    for name, response in {
        "create-bad-json": http.post(
            "/api/v1/requests", content=b"{bad", headers={"Content-Type": "application/json"}
        ),
        "not-found": http.get("/api/v1/nosuch"),
        "method-not-allowed": http.delete("/api/v1/requests"),
    }.items():
        assert_as_recorded(response, name)


def test_spinc_reports_an_unreachable_server_in_one_sentence(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "spincycle_grpc.cli", "--addr=127.0.0.1:1", "ps"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=COMMAND,
        check=False,
    )
    assert told.returncode not in (0, 1, 2)
    assert "127.0.0.1:1" in told.stderr
    assert len(told.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_exits_cleanly_on_a_signal_and_the_next_server_resumes_its_request(
    tmp_path: Path, number: int
) -> None:
    with running("server", "--http=127.0.0.1:0", directory=tmp_path) as first:
        base = f"http://{first.address('request-manager', 'http')}/api/v1/requests"
        request_id = httpx.post(base, json={"type": "nap", "args": {"ms": "3000"}}, timeout=ANSWER).json()[
            "id"
        ]
        eventually(
            lambda: httpx.get(base.replace("requests", "status/running"), timeout=ANSWER).json()["jobs"]
        )
        assert first.terminate(number) == 0, first.log()
    with running("server", "--http=127.0.0.1:0", directory=tmp_path) as second:
        base = f"http://{second.address('request-manager', 'http')}"
        with httpx.Client(base_url=base, timeout=ANSWER) as http:
            finished = wait_state(http, request_id, state_pb2.STATE_COMPLETE, state_pb2.STATE_FAIL)
            assert finished["state"] == state_pb2.STATE_COMPLETE
            log = http.get(f"/api/v1/requests/{request_id}/log").json()
            assert sum(entry["type"] == "noop" for entry in log) == 4
            assert sorted(entry["state"] for entry in log if entry["type"] == "sleep") == [3, 6]
        assert second.terminate(number) == 0


def test_a_request_stays_pending_until_there_is_a_runner(tmp_path: Path) -> None:
    with running("request-manager", "--http=127.0.0.1:0", directory=tmp_path) as manager:
        base = f"http://{manager.address('request-manager', 'http')}"
        with httpx.Client(base_url=base, timeout=ANSWER) as http:
            created = http.post("/api/v1/requests", json={"type": "diamond"})
            assert created.status_code == 201
            request_id = created.json()["id"]
            assert http.get(f"/api/v1/requests/{request_id}").json()["state"] == state_pb2.STATE_PENDING
            start = http.put(f"/api/v1/requests/{request_id}/start")
            assert start.status_code == 503
            assert start.json()["requestId"] == request_id
            address = manager.address("request-manager", "grpc")
            with running("job-runner", "--http=127.0.0.1:0", f"--rm={address}", directory=tmp_path):
                wait_state(http, request_id, state_pb2.STATE_COMPLETE)


def test_a_server_reports_a_port_in_use_in_one_sentence(server: ServerProcess, tmp_path: Path) -> None:
    with running(
        "request-manager", f"--http={server.address('request-manager', 'http')}", directory=tmp_path
    ) as second:
        assert second.process.wait(PROCESS_END) == 1
        eventually(lambda: second.events and "in use" in second.events[-1]["message"])
        assert "Traceback" not in second.log()


def test_the_demo_completes_a_request(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "spincycle_server", "demo", "--once", f"--http=127.0.0.1:{free_port()}"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "SPINCYCLE_JOB_RUNNER_ADDR": "127.0.0.1:0"},
        capture_output=True,
        text=True,
        timeout=COMMAND,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "COMPLETE" in done.stdout
