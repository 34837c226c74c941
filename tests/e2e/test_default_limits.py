"""Large answers, read with gRPC channels as clients open them without options: they accept 4 MiB."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import httpx
import pytest

from spincycle_grpc import Client, State
from spincycle_grpc.structs import to_struct
from spincycle_grpc.v1 import request_manager_pb2 as messages
from spincycle_grpc.v1.job_pb2 import JobChain
from spincycle_grpc.v1.request_manager_pb2_grpc import RequestManagerStub
from tests.e2e.processes import ServerProcess, running
from tests.limits import ANSWER, REQUEST_END

LIMIT = 4 * 1024 * 1024
JOBS = 70
OUTPUT = 1_000_000
HOSTS = [f"host-{number:05d}" for number in range(10_000)]
FLEET_JOBS = 40_006

SPECS = """
sequences:
  loud:
    request: true
    args:
      required: [{name: numbers}]
      static: [{name: cmd, default: SCRIPT}]
    nodes:
      job:
        category: job
        type: shell-command
        each: ["numbers:args"]
        args: [{expected: cmd, given: cmd}]
  verbose:
    request: true
    args:
      static: [{name: cmd, default: VERBOSE}]
    nodes:
      job: {category: job, type: shell-command, args: [{expected: cmd, given: cmd}]}
  fleet:
    request: true
    args:
      required: [{name: hosts}]
    nodes:
      host: {category: sequence, type: one-host, each: ["hosts:host"]}
  one-host:
    args:
      required: [{name: host}]
      static: [{name: note, default: every job of a real request has some args like this text}]
    nodes:
      first:
        category: job
        type: noop
        args: [{expected: host, given: host}, {expected: note, given: note}]
      second:
        category: job
        type: noop
        args: [{expected: host, given: host}, {expected: note, given: note}]
        deps: [first]
"""

VERBOSE = """#!/bin/sh
yes 'kräftig €' | head -c 6000001
yes 'überall' | head -c 3000002 >&2
"""
"""Writes more than a Job Runner keeps to stdout, and nearly as much to stderr. Characters are cut in two."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    directory = tmp_path_factory.mktemp("default-limits")
    script = directory / "loud.sh"
    script.write_text(f"#!/bin/sh\nhead -c {OUTPUT} /dev/zero | tr '\\0' x\n")
    script.chmod(0o755)
    verbose = directory / "verbose.sh"
    verbose.write_text(VERBOSE)
    verbose.chmod(0o755)
    (directory / "specs").mkdir()
    specs = SPECS.replace("SCRIPT", str(script)).replace("VERBOSE", str(verbose))
    (directory / "specs" / "specs.yaml").write_text(specs)
    environment = {
        "SPINCYCLE_SPECS_DIR": str(directory / "specs"),
        "SPINCYCLE_SERVER_ADDR": "127.0.0.1:0",
        "SPINCYCLE_SERVER_GRPC": "127.0.0.1:0",
        "SPINCYCLE_JOB_RUNNER_MAX_OUTPUT": "4MiB",
    }
    with running("server", directory=directory, environment=environment) as server:
        server.wait_for("runner reports")
        yield server


@pytest.fixture(scope="module")
def stub(server: ServerProcess) -> Iterator[RequestManagerStub]:
    with grpc.insecure_channel(server.address("request-manager", "grpc")) as channel:
        yield RequestManagerStub(channel)


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[Client]:
    with Client(server.address("request-manager", "grpc"), deadline=ANSWER) as client:
        yield client


@pytest.fixture(scope="module")
def loud(client: Client) -> str:
    """A request of many jobs with much output each."""
    return ended(client, client.create("loud", {"numbers": [str(number) for number in range(JOBS)]}).id)


@pytest.fixture(scope="module")
def fleet(client: Client) -> str:
    """A request over many hosts."""
    return ended(client, client.create("fleet", {"hosts": HOSTS}).id)


def ended(client: Client, request_id: str) -> str:
    request = client.wait(request_id, deadline=REQUEST_END)
    assert State(request.state) is State.COMPLETE
    return request_id


def pages(method: Callable[..., Any], request: Any) -> list[Any]:
    """Returns the responses of all pages."""
    responses: list[Any] = []
    while True:
        responses.append(method(request, timeout=ANSWER))
        assert responses[-1].ByteSize() <= LIMIT
        if not responses[-1].next_page_token:
            return responses
        request.page_token = responses[-1].next_page_token


def joined(chains: list[JobChain]) -> JobChain:
    whole = JobChain()
    for chain in chains:
        whole.MergeFrom(chain)
    return whole


def test_a_log_of_much_output_comes_in_pages(
    stub: RequestManagerStub, client: Client, http: httpx.Client, loud: str
) -> None:
    found = pages(stub.GetLog, messages.GetLogRequest(request_id=loud))
    entries = [entry for page in found for entry in page.entries]
    loud_ones = [entry for entry in entries if entry.type == "shell-command"]
    assert [len(entry.stdout) for entry in loud_ones] == [OUTPUT] * JOBS
    assert {entry.stdout_omitted for entry in entries} == {0}
    assert len(found) == -(-JOBS // 3)
    assert client.log(loud) == entries
    assert list(client.iter_log(loud)) == entries
    whole = http.get(f"/api/v1/requests/{loud}/log").json()
    assert [(entry["jobId"], entry["stdout"]) for entry in whole] == [
        (entry.job_id, entry.stdout) for entry in entries
    ]


def test_output_that_is_too_large_for_a_page_can_be_read_whole(
    stub: RequestManagerStub, client: Client, http: httpx.Client
) -> None:
    request_id = ended(client, client.create("verbose").id)
    entries = http.get(f"/api/v1/requests/{request_id}/log").json()
    [whole] = [entry for entry in entries if entry["type"] == "shell-command"]
    assert len(whole["stdout"].encode()) > 2**22 - 100
    job_id = whole["jobId"]
    [page] = pages(stub.GetLog, messages.GetLogRequest(request_id=request_id))
    [cut] = [entry for entry in page.entries if entry.job_id == job_id]
    newest = stub.GetJobLog(messages.GetJobLogRequest(request_id=request_id, job_id=job_id), timeout=ANSWER)
    for entry in (cut, newest.entry):
        for stream in ("stdout", "stderr"):
            shown, omitted = getattr(entry, stream), getattr(entry, f"{stream}_omitted")
            assert omitted > 0
            assert whole[stream].startswith(shown)
            assert len(shown.encode()) + omitted == len(whole[stream].encode())
    [logged] = [entry for entry in client.log(request_id) if entry.job_id == job_id]
    [iterated] = [entry for entry in client.iter_log(request_id) if entry.job_id == job_id]
    for entry in (logged, iterated, client.job_log(request_id, job_id)):
        assert (entry.stdout, entry.stderr) == (whole["stdout"], whole["stderr"])
        assert (entry.stdout_omitted, entry.stderr_omitted) == (0, 0)


def test_a_job_chain_of_many_hosts_comes_in_pages(
    stub: RequestManagerStub, client: Client, http: httpx.Client, fleet: str
) -> None:
    chains = [
        page.job_chain for page in pages(stub.GetJobChain, messages.GetJobChainRequest(request_id=fleet))
    ]
    chain = joined(chains)
    assert len(chain.jobs) == FLEET_JOBS
    assert len(chains) > 1
    assert all(set(part.adjacency_list) <= set(part.jobs) for part in chains)
    assert client.job_chain(fleet) == chain
    request = client.get(fleet)
    assert (request.job_chain, request.total_jobs) == (chain, FLEET_JOBS)
    whole = http.get(f"/api/v1/requests/{fleet}").json()["JobChain"]
    assert whole["adjacencyList"] == {job_id: list(ids.ids) for job_id, ids in chain.adjacency_list.items()}
    assert set(whole["jobs"]) == set(chain.jobs)


def test_get_shows_a_large_request_without_its_job_chain(
    stub: RequestManagerStub, server: ServerProcess, fleet: str
) -> None:
    request = stub.Get(messages.GetRequest(request_id=fleet), timeout=ANSWER).request
    assert (request.total_jobs, request.HasField("job_chain")) == (FLEET_JOBS, False)
    full = messages.GetRequest(request_id=fleet, view=messages.REQUEST_VIEW_FULL)
    with pytest.raises(grpc.RpcError, match="GetJobChain") as caught:
        stub.Get(full, timeout=ANSWER)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "Traceback" not in server.log()


def test_a_log_of_many_hosts_comes_in_pages(stub: RequestManagerStub, client: Client, fleet: str) -> None:
    found = pages(stub.GetLog, messages.GetLogRequest(request_id=fleet))
    entries = [entry for page in found for entry in page.entries]
    assert len({entry.job_id for entry in entries}) == len(entries) == FLEET_JOBS
    assert client.log(fleet) == entries


def test_a_plan_of_many_hosts_comes_in_pages(stub: RequestManagerStub, client: Client) -> None:
    call = messages.PlanRequest(type="fleet", args=to_struct({"hosts": HOSTS}))
    plans = [page.request for page in pages(stub.Plan, call)]
    assert len(plans) > 1
    assert [len(plan.args) for plan in plans] == [1] + [0] * (len(plans) - 1)
    chain = joined([plan.job_chain for plan in plans])
    assert len(chain.jobs) == FLEET_JOBS
    followers = set(itertools.chain.from_iterable(ids.ids for ids in chain.adjacency_list.values()))
    assert len(followers) == FLEET_JOBS - 1  # All but the first.
    planned = client.plan("fleet", {"hosts": HOSTS})
    assert (len(planned.job_chain.jobs), planned.total_jobs) == (FLEET_JOBS, FLEET_JOBS)


def test_http_callers_get_pages_if_they_ask(http: httpx.Client, loud: str) -> None:
    path = f"/api/v1/requests/{loud}/log"
    whole = http.get(path)
    assert "X-Spincycle-Next-Page-Token" not in whole.headers
    entries: list[Any] = []
    query = {"pageSize": "2"}
    while True:
        page = http.get(path, params=query)
        assert len(page.json()) <= 2
        entries += page.json()
        token = page.headers.get("X-Spincycle-Next-Page-Token")
        if token is None:
            break
        query["pageToken"] = token
    assert entries == whole.json()
    for wrong, reason in (
        ({"pageToken": "x"}, "BAD_PAGE_TOKEN"),
        ({"pageSize": "-1"}, "BAD_PAGE_SIZE"),
        ({"pageSize": "ten"}, "BAD_QUERY"),
        ({"pageSize": "9" * 20}, "BAD_QUERY"),
    ):
        refused = http.get(path, params=wrong)
        assert (refused.status_code, refused.headers["X-Spincycle-Reason"]) == (400, reason)
    basic = http.get(f"/api/v1/requests/{loud}", params={"view": "BASIC"}).json()
    full = http.get(f"/api/v1/requests/{loud}").json()
    added = {name: basic.pop(name) for name in ("totalTasks", "finishedTasks")}
    assert added == {"totalTasks": 70, "finishedTasks": 70}
    assert basic == {name: value for name, value in full.items() if name != "JobChain"} != full
