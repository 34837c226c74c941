"""Which host failed: a real server names jobs by their paths, over gRPC and HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import pytest

from spincycle_grpc.state import State
from spincycle_grpc.v1 import request_manager_pb2 as messages
from spincycle_grpc.v1.request_manager_pb2_grpc import RequestManagerStub
from spincycle_grpc.v1.state_pb2 import STATE_FAIL
from tests.e2e.processes import ServerProcess, running
from tests.e2e.waiting import wait_state
from tests.limits import ANSWER, REQUEST_END

SPECS = """
sequences:
  rolling-restart:
    request: true
    args: {required: [{name: hosts}]}
    nodes:
      restart-hosts: {category: sequence, type: restart-host, each: ["hosts:host"]}
  restart-host:
    args: {required: [{name: host}], static: [{name: program, default: ls}]}
    nodes:
      name: {category: job, type: noop}
      drain:
        category: job
        type: shell-command
        args: [{expected: cmd, given: program}, {expected: args, given: host}]
        retry: 1
        deps: [name]
  plain:
    request: true
    nodes: {n: {category: job, type: noop}}
"""

BAD = "/nowhere"
HOSTS = ["/", BAD, "/tmp"]
BAD_PATH = ["rolling-restart", f"host {BAD}", "drain"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    directory = tmp_path_factory.mktemp("paths")
    (directory / "specs").mkdir()
    (directory / "specs" / "specs.yaml").write_text(SPECS)
    with running(
        "server", "--specs=specs", "--http=127.0.0.1:0", "--grpc=127.0.0.1:0", directory=directory
    ) as process:
        process.wait_for("runner reports")
        yield process


@pytest.fixture(scope="module")
def http(server: ServerProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://{server.address('request-manager', 'http')}", timeout=ANSWER) as one:
        yield one


@pytest.fixture(scope="module")
def stub(server: ServerProcess) -> Iterator[RequestManagerStub]:
    with grpc.insecure_channel(server.address("request-manager", "grpc")) as channel:
        yield RequestManagerStub(channel)


@pytest.fixture(scope="module")
def failed(http: httpx.Client) -> str:
    """The id of a request that has failed on one host."""
    created = http.post("/api/v1/requests", json={"Type": "rolling-restart", "Args": {"hosts": HOSTS}}).json()
    wait_state(http, created["id"], State.FAIL)
    request_id: str = created["id"]
    return request_id


def test_the_log_has_the_path_of_each_job(http: httpx.Client, stub: RequestManagerStub, failed: str) -> None:
    log = http.get(f"/api/v1/requests/{failed}/log").json()
    paths = {tuple(entry["path"]) for entry in log if entry["name"] == "drain"}
    assert paths == {("rolling-restart", f"host {host}", "drain") for host in HOSTS}
    assert all("path" not in entry for entry in log if entry["name"] == "noop")
    over_grpc = stub.GetLog(messages.GetLogRequest(request_id=failed), timeout=ANSWER).entries
    assert [list(entry.path) for entry in over_grpc] == [entry.get("path", []) for entry in log]
    bad = next(entry for entry in over_grpc if entry.state == STATE_FAIL)
    asked = messages.GetJobLogRequest(request_id=failed, job_id=bad.job_id)
    assert stub.GetJobLog(asked, timeout=ANSWER).entry.path == bad.path == BAD_PATH


def test_one_call_returns_the_failed_jobs(http: httpx.Client, stub: RequestManagerStub, failed: str) -> None:
    query = "state=FAIL&latestTries=true&omitNoops=true"
    [bad] = http.get(f"/api/v1/requests/{failed}/log?{query}").json()
    assert (bad["path"], bad["try"], bad["state"]) == (BAD_PATH, 2, State.FAIL)
    asked = messages.GetLogRequest(request_id=failed, states=[STATE_FAIL], latest_tries=True, page_size=1)
    answer = stub.GetLog(asked, timeout=ANSWER)
    assert [(one.job_id, list(one.path)) for one in answer.entries] == [(bad["jobId"], BAD_PATH)]
    assert not answer.next_page_token
    both = http.get(f"/api/v1/requests/{failed}/log?jobId={bad['jobId']}&newestFirst=true").json()
    assert [entry["try"] for entry in both] == [2, 1]


def test_the_newest_tries_come_in_pages(http: httpx.Client, stub: RequestManagerStub, failed: str) -> None:
    query = {"newestFirst": "true", "omitNoops": "true"}
    whole = http.get(f"/api/v1/requests/{failed}/log", params=query).json()
    assert [entry["path"][-1] for entry in whole[-3:]] == ["name"] * 3
    paged: list[Any] = []
    token = ""
    while not paged or token:
        page = http.get(
            f"/api/v1/requests/{failed}/log", params={**query, "pageSize": "2", "pageToken": token}
        )
        paged += page.json()
        token = page.headers.get("X-Spincycle-Next-Page-Token", "")
    assert paged == whole
    asked = messages.GetLogRequest(request_id=failed, newest_first=True, omit_noops=True)
    over_grpc = stub.GetLog(asked, timeout=ANSWER).entries
    assert [one.job_id for one in over_grpc] == [entry["jobId"] for entry in whole]
    refused = http.get(f"/api/v1/requests/{failed}/log?pageSize=2&pageToken={token or 'x'}")
    assert refused.headers["X-Spincycle-Reason"] == "BAD_PAGE_TOKEN"
    unknown = http.get(f"/api/v1/requests/{failed}/log?state=NOSUCH")
    assert unknown.status_code == 400


def test_watch_has_the_paths_too(http: httpx.Client, stub: RequestManagerStub, failed: str) -> None:
    seen = stub.Watch(messages.WatchRequest(request_id=failed), timeout=REQUEST_END)
    over_grpc = [list(one.path) for message in seen for one in message.tries if one.state == STATE_FAIL]
    assert over_grpc == [BAD_PATH] * 2
    with http.stream("GET", f"/api/v1/requests/{failed}/watch") as events:
        sent = [json.loads(line[6:]) for line in events.iter_lines() if line.startswith("data: ")]
    tries = [one for message in sent for one in message.get("tries", ())]
    assert [one["path"] for one in tries if one["state"] == State.FAIL] == over_grpc


def test_a_plain_request_has_the_json_of_an_original(http: httpx.Client) -> None:
    created = http.post("/api/v1/requests", json={"Type": "plain"}).json()
    wait_state(http, created["id"], State.COMPLETE)
    assert "pathLabels" not in http.get(f"/api/v1/requests/{created['id']}/job-chain").json()
    assert all("path" not in entry for entry in http.get(f"/api/v1/requests/{created['id']}/log").json())


def test_progress_counts_the_jobs_of_nodes(http: httpx.Client, stub: RequestManagerStub, failed: str) -> None:
    request = stub.Get(messages.GetRequest(request_id=failed), timeout=ANSWER).request
    assert (request.total_tasks, request.finished_tasks) == (6, 5)
    assert (request.total_jobs, request.finished_jobs) == (18, 13)
    for path in (f"requests/{failed}?view=BASIC", "requests?pageSize=100"):
        answer = http.get(f"/api/v1/{path}").json()
        [shown] = [one for one in ([answer] if isinstance(answer, dict) else answer) if one["id"] == failed]
        assert (shown["totalTasks"], shown["finishedTasks"]) == (6, 5)
    plain = http.post("/api/v1/requests", json={"Type": "plain"}).json()
    as_original = [plain, http.get(f"/api/v1/requests/{failed}").json(), *http.get("/api/v1/requests").json()]
    assert not [one for one in as_original if "totalTasks" in one or "finishedTasks" in one]
    wait_state(http, plain["id"], State.COMPLETE)
    ended = stub.Get(messages.GetRequest(request_id=plain["id"]), timeout=ANSWER).request
    assert (ended.total_tasks, ended.finished_tasks) == (1, 1)


def alike(one: str, other: str) -> int:
    """Returns how many characters two ids share at their beginnings."""
    return next(index for index, pair in enumerate(zip(one, other, strict=True)) if pair[0] != pair[1])


def test_a_shortened_id_is_enough(http: httpx.Client, stub: RequestManagerStub, failed: str) -> None:
    http.post("/api/v1/requests", json={"Type": "plain"}).raise_for_status()
    ids = {one["id"] for one in http.get("/api/v1/requests").json()}
    # The other tests of this module have made requests too, and any of them may be the most alike.
    shared = max(alike(failed, other) for other in ids - {failed})
    short = failed[: shared + 1]
    assert http.get(f"/api/v1/requests/{short}").json()["id"] == failed
    assert stub.Get(messages.GetRequest(request_id=short), timeout=ANSWER).request.id == failed
    seen = stub.Watch(messages.WatchRequest(request_id=short), timeout=REQUEST_END)
    assert {request.id for message in seen for request in message.requests} == {failed}
    ambiguous = http.get(f"/api/v1/requests/{failed[:shared]}")
    assert (ambiguous.status_code, ambiguous.headers["X-Spincycle-Reason"]) == (400, "AMBIGUOUS_REQUEST_ID")
    assert failed in ambiguous.json()["message"]


def test_a_retry_runs_one_host_again_that_is_named_by_its_path(http: httpx.Client, failed: str) -> None:
    refused = http.post(f"/api/v1/requests/{failed}/retry", json={"from": "drain"})
    assert (refused.status_code, refused.headers["X-Spincycle-Reason"]) == (400, "AMBIGUOUS_JOB")
    assert "rolling-restart / host /tmp / drain" in refused.json()["message"]
    created = http.post(f"/api/v1/requests/{failed}/retry", json={"from": "host /tmp"}).json()
    assert (created["totalTasks"], created["finishedTasks"]) == (6, 3)
    wait_state(http, created["id"], State.FAIL)
    log = http.get(f"/api/v1/requests/{created['id']}/log?omitNoops=true").json()
    again = {tuple(entry["path"][1:]) for entry in log}
    assert again == {("host /tmp", "name"), ("host /tmp", "drain"), (f"host {BAD}", "drain")}
