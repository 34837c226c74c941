"""Retries with real servers: only what is not done runs, whatever is killed in between."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from spincycle_grpc import Client, ConflictError, FailedPreconditionError, InvalidArgumentError
from spincycle_grpc.state import State
from tests.e2e.hosts import Hosts
from tests.e2e.processes import ServerProcess, running
from tests.e2e.waiting import eventually, wait_state
from tests.limits import ANSWER
from tests.ports import free_port

PATH = "/api/v1/requests"
HOSTS = [f"web{number}" for number in range(20)]

SPECS = """
sequences:
  restart:
    request: true
    args:
      required: [{{name: hosts}}]
      static: [{{name: verify, default: "{directory}/verify"}}]
    nodes:
      hosts: {{category: sequence, type: one-host, each: ["hosts:host"]}}
      verify:
        category: job
        type: shell-command
        deps: [hosts]
        args: [{{expected: cmd, given: verify}}]
  one-host:
    args:
      required: [{{name: host}}]
      static: [{{name: drain, default: "{directory}/drain"}}, {{name: boot, default: "{directory}/boot"}}]
    nodes:
      drain:
        category: job
        type: shell-command
        args: [{{expected: cmd, given: drain}}, {{expected: args, given: host}}]
      boot:
        category: job
        type: shell-command
        deps: [drain]
        args: [{{expected: cmd, given: boot}}, {{expected: args, given: host}}]
"""


@pytest.fixture
def hosts(tmp_path: Path) -> Hosts:
    return Hosts(tmp_path, SPECS, "drain", "boot", "verify")


@pytest.fixture
def server(hosts: Hosts) -> Iterator[ServerProcess]:
    with running(
        "server",
        "--http=127.0.0.1:0",
        directory=hosts.directory,
        environment={"SPINCYCLE_SPECS_DIR": str(hosts.specs)},
    ) as both:
        both.wait_for("runner reports")
        yield both


def create(http: httpx.Client, names: list[str]) -> str:
    answer = http.post(PATH, json={"type": "restart", "args": {"hosts": names}})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def retry(http: httpx.Client, request_id: str, **body: str) -> dict[str, Any]:
    answer = http.post(f"{PATH}/{request_id}/retry", json=body)
    assert answer.status_code == 201, answer.text
    assert answer.headers["Location"] == f"{PATH}/{answer.json()['id']}"
    made: dict[str, Any] = answer.json()
    return made


def get(http: httpx.Client, request_id: str) -> dict[str, Any]:
    found: dict[str, Any] = http.get(f"{PATH}/{request_id}").json()
    return found


def test_a_request_over_twenty_hosts_with_a_bad_one_is_fixed_and_retried(
    hosts: Hosts, http: httpx.Client
) -> None:
    bad = hosts.is_bad("boot web7")
    first_id = create(http, HOSTS)
    first = wait_state(http, first_id, State.FAIL)
    assert "retriedBy" not in first
    bad.unlink()
    hosts.forget()
    second = retry(http, first_id)
    assert (second["state"], second["retryOf"]) == (State.PENDING, first_id)
    assert second["finishedJobs"] == first["finishedJobs"]
    assert "JobChain" not in second
    done = wait_state(http, second["id"], State.COMPLETE)
    assert hosts.ran() == {"boot web7": 1, "verify": 1}
    assert done["finishedJobs"] == done["totalJobs"] == first["totalJobs"]
    assert done["args"] == first["args"]
    assert done["JobChain"]["jobs"].keys() == first["JobChain"]["jobs"].keys()
    complete = [one for one in done["JobChain"]["jobs"].values() if one["state"] == State.COMPLETE]
    assert len(complete) == first["finishedJobs"]
    assert not any("data" in one for one in complete)
    log = http.get(f"{PATH}/{second['id']}/log").json()
    assert {entry["name"] for entry in log} == {"boot", "verify", "noop"}
    assert {entry["try"] for entry in log} == {1}
    after = get(http, first_id)
    assert after.pop("retriedBy") == second["id"]
    assert after == first


def test_a_retry_from_a_job_runs_it_and_all_after_it_again(
    hosts: Hosts, http: httpx.Client, server: ServerProcess
) -> None:
    bad = hosts.is_bad("verify")
    first_id = create(http, ["web1", "web2"])
    first = wait_state(http, first_id, State.FAIL)
    bad.unlink()
    hosts.forget()
    (boot,) = [
        one["id"]
        for one in first["JobChain"]["jobs"].values()
        if one["name"] == "boot" and one["args"]["args"] == "web2"
    ]
    with Client(server.address("request-manager", "grpc")) as client:
        with pytest.raises(InvalidArgumentError) as several:
            client.retry(first_id, from_job="boot")
        assert several.value.reason == "AMBIGUOUS_JOB"
        with pytest.raises(InvalidArgumentError) as none:
            client.retry(first_id, from_job="reboot")
        assert none.value.reason == "NO_SUCH_JOB"
        again = client.retry(first_id, from_job=boot)
        assert State(client.wait(again.id).state) is State.COMPLETE
    assert hosts.ran() == {"boot web2": 1, "verify": 1}
    with pytest.raises(FailedPreconditionError), Client(server.address("request-manager", "grpc")) as client:
        client.retry(again.id)


def test_a_stopped_request_and_a_failed_retry_can_be_retried(hosts: Hosts, http: httpx.Client) -> None:
    gate = hosts.waits("boot web1")
    first_id = create(http, ["web1", "web2"])
    eventually(lambda: hosts.ran()["boot web1"] and hosts.ran()["boot web2"])
    eventually(lambda: get(http, first_id)["finishedJobs"] >= 7)  # all but boot web1 and what is after it
    assert http.put(f"{PATH}/{first_id}/stop").status_code == 200
    wait_state(http, first_id, State.STOPPED)
    gate.unlink()
    bad = hosts.is_bad("boot web1")
    hosts.forget()
    second = retry(http, first_id)
    wait_state(http, second["id"], State.FAIL)
    assert hosts.ran() == {"boot web1": 1}
    bad.unlink()
    third = retry(http, second["id"])
    wait_state(http, third["id"], State.COMPLETE)
    assert third["retryOf"] == second["id"]
    assert hosts.ran() == {"boot web1": 2, "verify": 1}


def test_another_retry_is_refused_until_the_first_one_has_ended(
    hosts: Hosts, http: httpx.Client, server: ServerProcess
) -> None:
    hosts.is_bad("boot web1")
    first_id = create(http, ["web1"])
    wait_state(http, first_id, State.FAIL)
    gate = hosts.waits("boot web1")
    second = retry(http, first_id)
    refused = http.post(f"{PATH}/{first_id}/retry", json={})
    assert refused.status_code == 409
    assert refused.headers["X-Spincycle-Reason"] == "RETRY_NOT_ENDED"
    assert second["id"] in refused.json()["message"]
    running_retry = http.post(f"{PATH}/{second['id']}/retry", json={})
    assert running_retry.status_code == 409
    assert running_retry.headers["X-Spincycle-Reason"] == "WRONG_STATE"
    gate.unlink()
    wait_state(http, second["id"], State.FAIL)
    assert retry(http, first_id)["retryOf"] == first_id


def test_a_repeated_call_with_a_key_gets_the_same_answer(
    hosts: Hosts, http: httpx.Client, server: ServerProcess
) -> None:
    bad = hosts.is_bad("boot web1")
    first_id = create(http, ["web1"])
    wait_state(http, first_id, State.FAIL)
    bad.unlink()
    key = {"Idempotency-Key": "retry-4711"}
    answers = [http.post(f"{PATH}/{first_id}/retry", json={}, headers=key)]
    wait_state(http, answers[0].json()["id"], State.COMPLETE)
    answers.append(http.post(f"{PATH}/{first_id}/retry", json={}, headers=key))
    assert [one.status_code for one in answers] == [201, 201]
    assert answers[0].json() == answers[1].json()
    reused = http.post(f"{PATH}/{first_id}/retry", json={"from": "boot"}, headers=key)
    assert reused.status_code == 409
    assert reused.headers["X-Spincycle-Reason"] == "IDEMPOTENCY_KEY_REUSED"
    with Client(server.address("request-manager", "grpc")) as client, pytest.raises(ConflictError):
        client.create("restart", {"hosts": ["web1"]}, idempotency_key="retry-4711")


def test_a_retry_whose_runner_is_killed_goes_on_and_repeats_nothing_that_is_done(hosts: Hosts) -> None:
    port = free_port()
    environment = {
        "SPINCYCLE_SPECS_DIR": str(hosts.specs),
        "SPINCYCLE_RESUME_INTERVAL": "100ms",
        "SPINCYCLE_JOB_RUNNER_LEASE": "4s",
    }
    runner = ("job-runner", "--http=127.0.0.1:0", f"--rm=127.0.0.1:{port + 10}")
    with contextlib.ExitStack() as stack:

        def start(*arguments: str) -> ServerProcess:
            return stack.enter_context(
                running(*arguments, directory=hosts.directory, environment=environment)
            )

        start("request-manager", f"--http=127.0.0.1:{port}").wait_for("listening")
        lost = start(*runner)
        lost.wait_for("reporting")
        http = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=ANSWER))
        bad = hosts.is_bad("drain web1"), hosts.is_bad("drain web2")
        first_id = create(http, ["web1", "web2", "web3"])
        wait_state(http, first_id, State.FAIL)
        assert hosts.ran()["boot web3"] == 1
        for mark in bad:
            mark.unlink()
        hosts.forget()
        gate = hosts.waits("boot web1")
        second_id = retry(http, first_id)["id"]
        before = get(http, first_id)["finishedJobs"]
        # Done in the retry: drain web1, drain web2, boot web2 and the end of web2. Boot web1 runs.
        eventually(lambda: hosts.ran()["boot web1"] and get(http, second_id)["finishedJobs"] >= before + 4)
        start(*runner).wait_for("reporting")
        lost.kill()
        gate.unlink()
        wait_state(http, second_id, State.COMPLETE)
        steps = ("drain web1", "drain web2", "boot web2", "verify")
        assert {step: hosts.ran()[step] for step in steps} == dict.fromkeys(steps, 1)
        assert hosts.ran().keys() == {*steps, "boot web1"}
        log = http.get(f"{PATH}/{second_id}/log").json()
        assert len(log) == get(http, second_id)["totalJobs"] - before
