"""Separate servers recognize each other by the key, and strangers get in by no door."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from spincycle_grpc.rpc_errors import error_from_rpc
from spincycle_grpc.state import State
from spincycle_grpc.v1.runner_reports_pb2 import ReportRequest, RunnerInfo
from spincycle_grpc.v1.runner_reports_pb2_grpc import RunnerReportsStub
from spincycle_server.identity.cluster import KEY_HEADER
from tests.databases import SharedServers, migrate
from tests.e2e.processes import ServerProcess, running
from tests.e2e.waiting import eventually, wait_state
from tests.limits import ANSWER, PROCESS_END

KEY, OTHER_KEY = "k" * 40, "o" * 40
FAKE_ID = "0" * 20
USER = {"authorization": "Bearer finch:operator"}
DENY_STRANGERS = {"auth": {"plugin": "tests.e2e.users_plugin:Plugin"}}


class Installation:
    """A Request Manager and Job Runners in processes of their own."""

    def __init__(self, directory: Path, stack: contextlib.ExitStack) -> None:
        self.directory = directory
        self._stack = stack
        self._started = 0

    def key_file(self, *keys: str) -> Path:
        self._started += 1
        path = self.directory / f"{self._started}.key"
        path.write_text("\n".join(keys))
        return path

    def start(
        self, command: str, *arguments: str, key_file: Path | None = None, options: Any = None
    ) -> ServerProcess:
        self._started += 1
        file = self.directory / f"{self._started}.yaml"
        file.write_text(json.dumps(options or {}))
        environment = {} if key_file is None else {"SPINCYCLE_CLUSTER_KEY_FILE": str(key_file)}
        if not any(argument.startswith("--http") for argument in arguments):
            arguments = ("--http=127.0.0.1:0", *arguments)
        return self._stack.enter_context(
            running(command, str(file), *arguments, directory=self.directory, environment=environment)
        )

    def start_runner(self, manager: ServerProcess, *arguments: str, **more: Any) -> ServerProcess:
        address = manager.address("request-manager", "grpc")
        return self.start("job-runner", f"--rm={address}", *arguments, **more)

    def http(self, server: ServerProcess, name: str = "request-manager", **headers: str) -> httpx.Client:
        url = f"http://{server.address(name, 'http')}"
        return self._stack.enter_context(httpx.Client(base_url=url, timeout=ANSWER, headers=headers))


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    with contextlib.ExitStack() as stack:
        yield Installation(tmp_path, stack)


def create(http: httpx.Client, request_type: str = "diamond", **args: str) -> str:
    created = http.post("/api/v1/requests", json={"type": request_type, "args": args})
    assert created.status_code == 201, created.text
    return str(created.json()["id"])


def refusal_of_report(server: ServerProcess, runner: RunnerInfo, key: str = "") -> tuple[str, str]:
    """Returns the code and the reason with which a Report stream of a runner is refused; OK if it is not."""
    metadata = ((KEY_HEADER, key),) if key else ()
    with grpc.insecure_channel(server.address("request-manager", "grpc")) as channel:
        messages = iter([ReportRequest(number=1, holds_all=True, runner=runner)])
        answers = RunnerReportsStub(channel).Report(messages, metadata=metadata, timeout=ANSWER)
        try:
            next(iter(answers))
        except grpc.RpcError as error:
            read = error_from_rpc(error, "the server")
            return read.status.name, read.reason
    return "OK", ""


def fake_at(address: str) -> RunnerInfo:
    return RunnerInfo(runner_id=FAKE_ID, url="http://127.0.0.1:9", grpc_address=address)


def test_servers_with_the_same_key_work_together_and_strangers_get_401(installation: Installation) -> None:
    manager = installation.start(
        "request-manager", key_file=installation.key_file(KEY), options=DENY_STRANGERS
    )
    runner = installation.start_runner(manager, key_file=installation.key_file(KEY), options=DENY_STRANGERS)
    runner.wait_for("reporting")
    http = installation.http(manager, **USER)
    sleeping = create(http, "nap", ms="3600000")
    at_manager = at_runner = "/api/v1/status/running"
    eventually(lambda: [job["requestId"] for job in http.get(at_manager).json()["jobs"]] == [sleeping])
    assert installation.http(runner, "job-runner").get(at_runner).status_code == 401
    assert installation.http(runner, "job-runner", **USER).get(at_runner).status_code == 200
    assert installation.http(runner, "job-runner", **{KEY_HEADER: KEY}).get(at_runner).status_code == 200
    stop = f"/api/v1/job-chains/{sleeping}/stop"
    for headers in ({}, USER, {KEY_HEADER: OTHER_KEY}, {KEY_HEADER: ""}):
        assert installation.http(runner, "job-runner", **headers).put(stop).status_code == 401
    assert http.get(f"/api/v1/requests/{sleeping}").json()["state"] == State.RUNNING
    assert installation.http(runner, "job-runner", **{KEY_HEADER: KEY}).put(stop).status_code == 200
    wait_state(http, sleeping, State.STOPPED)
    called = runner.wait_for("server called", request_id=sleeping)
    assert called["method"] == "spincycle.v1.JobRunner.StopJobChain"
    assert called["peer"].startswith("127.0.0.1:")
    assert KEY not in manager.log() + runner.log()


@pytest.mark.parametrize("key", [OTHER_KEY, ""])
def test_a_runner_with_another_key_gets_no_chains(installation: Installation, key: str) -> None:
    manager = installation.start("request-manager", key_file=installation.key_file(KEY))
    key_file = installation.key_file(key) if key else None
    runner = installation.start_runner(manager, key_file=key_file)
    warning = runner.wait_for("reporting interrupted")
    assert "cluster.key_file" in warning["error"]
    denied = manager.wait_for("call failed", method="spincycle.v1.RunnerReports.Report")
    assert denied["reason"] == "SERVERS_ONLY"
    assert "127.0.0.1:" in denied["peer"]
    http = installation.http(manager)
    assert http.get(f"/api/v1/requests/{create(http)}").json()["state"] == State.PENDING
    assert KEY not in manager.log() + runner.log()


def test_a_request_manager_without_the_key_keeps_requests_that_a_runner_does_not_accept(
    installation: Installation,
) -> None:
    manager = installation.start("request-manager")
    strict = installation.start_runner(manager, key_file=installation.key_file(KEY))
    strict.wait_for("reporting")
    http = installation.http(manager)
    request_id = create(http)
    error = manager.wait_for("runner does not accept this Request Manager", request_id=request_id)
    assert "cluster.key_file" in error["error"]
    wait_state(http, request_id, State.PENDING)
    installation.start_runner(manager).wait_for("reporting")
    wait_state(http, request_id, State.COMPLETE)


def test_the_key_is_replaced_without_an_interruption(installation: Installation) -> None:
    files = [installation.key_file(KEY), installation.key_file(KEY)]
    manager = installation.start("request-manager", key_file=files[0])
    runner = installation.start_runner(manager, key_file=files[1])
    runner.wait_for("reporting")
    http = installation.http(manager)
    made: list[str] = []
    is_over = threading.Event()

    def make_requests() -> None:
        while not is_over.is_set():
            made.append(create(http))
            is_over.wait(0.02)

    making = threading.Thread(target=make_requests)
    making.start()
    try:
        for keys in ([KEY, OTHER_KEY], [OTHER_KEY, KEY], [OTHER_KEY]):
            for file, server in zip(files, (manager, runner), strict=True):
                rewrite(file, keys, server)
        before = len(made)
        eventually(lambda: len(made) > before + 20 or not making.is_alive())
    finally:
        is_over.set()
        making.join(ANSWER)
    for request_id in made:
        wait_state(http, request_id, State.COMPLETE)
    assert not [event for event in manager.events if event.get("reason") == "SERVERS_ONLY"]
    assert not [event for event in manager.events if event["message"].startswith("runner does not")]
    assert refusal_of_report(manager, fake_at("127.0.0.1:9"), KEY) == ("UNAUTHENTICATED", "SERVERS_ONLY")


def rewrite(file: Path, keys: Sequence[str], server: ServerProcess) -> None:
    """Replaces the keys of a server, and waits until it has read them."""
    seen = _count(server, "cluster keys reloaded")
    written = file.with_suffix(".new")
    written.write_text("\n".join(keys))
    written.replace(file)
    eventually(lambda: _count(server, "cluster keys reloaded") > seen)


def _count(server: ServerProcess, message: str) -> int:
    return sum(event["message"] == message for event in server.events)


def test_a_fake_runner_does_not_replace_the_one_at_its_address(installation: Installation) -> None:
    manager = installation.start("request-manager")
    runner = installation.start_runner(manager)
    runner.wait_for("reporting")
    http = installation.http(manager)
    request_id = create(http, "nap", ms="3600000")
    wait_state(http, request_id, State.RUNNING)
    address = runner.address("job-runner", "grpc")
    assert refusal_of_report(manager, fake_at(address)) == ("FAILED_PRECONDITION", "ADDRESS_TAKEN")
    assert http.put(f"/api/v1/requests/{request_id}/stop").status_code == 200
    wait_state(http, request_id, State.STOPPED)
    wait_state(http, create(http), State.COMPLETE)
    assert _count(runner, "reporting") == 1


def test_a_runner_at_a_fixed_address_replaces_the_one_that_was_killed(installation: Installation) -> None:
    manager = installation.start("request-manager")
    options = {"job_runner": {"lease": "1h"}}
    first = installation.start_runner(manager, options=options)
    opened = manager.wait_for("report stream opened")
    first.wait_for("reporting")
    http = installation.http(manager)
    request_id = create(http, "nap", ms="1000")
    wait_state(http, request_id, State.RUNNING)
    where = first.address("job-runner", "http"), first.address("job-runner", "grpc")
    first.kill()
    assert manager.wait_for("report stream ended")["runner_id"] == opened["runner_id"]
    installation.start_runner(manager, f"--http={where[0]}", f"--grpc={where[1]}", options=options)
    wait_state(http, request_id, State.COMPLETE)
    assert manager.wait_for("runner left")["runner_id"] == opened["runner_id"]


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("10.255.255.1:9", "NEEDS_TLS"),
        ("unix:/run/docker.sock", "BAD_ADDRESS"),
        ("example.com", "BAD_ADDRESS"),
    ],
)
def test_the_key_is_not_sent_to_addresses_that_a_runner_chooses(
    installation: Installation, address: str, reason: str
) -> None:
    manager = installation.start("request-manager", key_file=installation.key_file(KEY))
    assert refusal_of_report(manager, fake_at(address), KEY)[1] == reason


def test_strangers_get_in_by_no_door_of_combined_servers(installation: Installation) -> None:
    server = installation.start("server", options=DENY_STRANGERS)
    server.wait_for("runner reports")
    http = installation.http(server, **USER)
    request_id = create(http, "nap", ms="3600000")
    wait_state(http, request_id, State.RUNNING)
    path = f"/api/v1/requests/{request_id}"
    entry = {"jobId": "aaaa", "try": 1, "state": 3, "name": "forged", "type": "sleep"}
    touched = installation.directory / "touched"
    for headers in ({}, USER, {KEY_HEADER: KEY}, {KEY_HEADER: ""}):
        stranger = installation.http(server, **headers)
        for answer in (
            stranger.put(f"{path}/finish", json={"requestId": request_id, "state": 3}),
            stranger.put(f"{path}/progress", json={"requestId": request_id, "finishedJobs": 1}),
            stranger.put(f"{path}/suspend", json={"requestId": request_id}),
            stranger.post(f"{path}/log", json=entry),
            installation.http(server, "job-runner", **headers).post(
                "/api/v1/job-chains", json=a_chain_that_touches(touched)
            ),
            installation.http(server, "job-runner", **headers).put(f"/api/v1/job-chains/{request_id}/stop"),
        ):
            assert answer.status_code == 401, answer.request.url
    assert refusal_of_report(server, fake_at("127.0.0.1:9")) == ("UNAUTHENTICATED", "SERVERS_ONLY")
    assert http.get(path).json()["state"] == State.RUNNING
    assert "forged" not in http.get(f"{path}/log").text
    assert http.put(f"{path}/stop").status_code == 200
    wait_state(http, request_id, State.STOPPED)
    assert not touched.exists()


def a_chain_that_touches(path: Path) -> dict[str, Any]:
    args = base64.b64encode(json.dumps({"cmd": "/bin/touch", "args": [str(path)]}).encode()).decode()
    job = {
        "id": "aaaa",
        "name": "x",
        "type": "shell-command",
        "bytes": args,
        "state": 1,
        "sequenceId": "aaaa",
    }
    return {"requestId": "x", "jobs": {"aaaa": job}, "adjacencyList": {}, "state": 1}


REMOTE_MANAGER = {"rm_client": {"grpc": "rm.example.com:32318"}}


@pytest.mark.parametrize(
    ("command", "arguments", "has_key", "options", "message"),
    [
        ("request-manager", [], False, DENY_STRANGERS, "option cluster.key_file: must be set, because users"),
        ("job-runner", [], False, DENY_STRANGERS, "option cluster.key_file: must be set, because users"),
        ("request-manager", ["--http=0.0.0.0:0"], False, {}, "option cluster.key_file: must be set, because"),
        ("job-runner", ["--http=0.0.0.0:0"], False, {}, "option cluster.key_file: must be set, because this"),
        ("request-manager", ["--http=0.0.0.0:0"], True, {}, "option server.tls: must be set, because other"),
        ("job-runner", [], True, REMOTE_MANAGER, "option rm_client.tls: must be set, because the key"),
    ],
)
def test_servers_refuse_to_start_where_strangers_could_get_in_or_read_the_key(
    installation: Installation,
    command: str,
    arguments: Sequence[str],
    has_key: bool,
    options: Any,
    message: str,
) -> None:
    key_file = installation.key_file(KEY) if has_key else None
    server = installation.start(command, *arguments, key_file=key_file, options=options)
    assert server.process.wait(PROCESS_END) != 0
    server.close()
    assert message in server.log()
    assert "Traceback" not in server.log()


def test_an_open_cluster_lets_everybody_in_although_users_are_authenticated(
    installation: Installation,
) -> None:
    options = {**DENY_STRANGERS, "cluster": {"open": True}}
    server = installation.start("server", options=options)
    server.wait_for("runner reports")
    http = installation.http(server)
    assert http.get("/api/v1/requests").status_code == 401
    assert http.put("/api/v1/requests/nosuch/finish", json={"state": 3}).status_code == 404


def test_combined_servers_on_one_database_use_their_own_runners_and_take_over_from_each_other(
    installation: Installation, database_servers: SharedServers, tmp_path: Path
) -> None:
    url = database_servers.url("mariadb", tmp_path)
    migrate(url)
    options = {"job_runner": {"lease": "4s"}}
    first, second = (installation.start("server", f"--db={url}", options=options) for _ in range(2))
    for server in (first, second):
        server.wait_for("reporting")
    made = [create(installation.http(server)) for server in (first, second) for _ in range(5)]
    http = installation.http(second)
    for request_id in made:
        wait_state(http, request_id, State.COMPLETE)
    assert not [event for event in first.events + second.events if event["level"] == "error"]
    lost = create(installation.http(first), "nap", ms="2000")
    wait_state(http, lost, State.RUNNING)
    first.kill()
    wait_state(http, lost, State.COMPLETE)
    assert second.wait_for("chain ended", request_id=lost)
