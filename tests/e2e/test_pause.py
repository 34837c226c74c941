"""A pause holds whatever dies, and after Resume the request goes on where it was."""

from __future__ import annotations

import contextlib
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from spincycle_grpc.errors import FailedPreconditionError
from spincycle_grpc.state import State
from tests.e2e.installations import JournalInstallation
from tests.e2e.waiting import eventually
from tests.journal_jobs import UNKNOWN
from tests.limits import PROCESS_END

SPECS = """
sequences:
  two-ways:
    request: true
    args: {required: [{name: gate1, desc: a file}, {name: gate2, desc: a file}]}
    nodes:
      first: {category: job, type: journal}
      held1: {category: job, type: held, args: [{expected: gate, given: gate1}], deps: [first]}
      held2: {category: job, type: held, args: [{expected: gate, given: gate2}], deps: [first]}
      after1: {category: job, type: journal, deps: [held1]}
      after2: {category: job, type: journal, deps: [held2]}
  plain:
    request: true
    nodes:
      only: {category: job, type: journal}
"""

JOBS = ("first", "held1", "held2", "after1", "after2")
ONCE = Counter(dict.fromkeys(JOBS, 1))


class Installation(JournalInstallation):
    """A Request Manager, which runs, and Job Runners."""

    def __init__(self, directory: Path, stack: contextlib.ExitStack) -> None:
        super().__init__(directory, stack, SPECS, environment={"SPINCYCLE_RESUME_TIMEOUT": "5s"})
        self.start_manager()

    def dies_in(self, method: str, path: str, **headers: str) -> None:
        """Makes a call over HTTP during which the Request Manager dies."""
        with pytest.raises(httpx.TransportError):
            self.http().request(method, f"/api/v1/requests/{path}", json={}, headers=headers)
        assert self.manager.process.wait(PROCESS_END) == -signal.SIGKILL

    def create(self, name: str = "p") -> str:
        """Creates a request whose jobs held1 and held2 wait for the gates name1 and name2."""
        gates = {"gate1": self.path(f"{name}1"), "gate2": self.path(f"{name}2")}
        return self.client.create("two-ways", gates).id

    def both_are_held(self, request_id: str, times: int = 1) -> None:
        eventually(lambda: all(self.events(request_id)[name] == times for name in ("held1", "held2")))


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    with contextlib.ExitStack() as stack:
        yield Installation(tmp_path, stack)


def reason_of(call: Any) -> str:
    with pytest.raises(FailedPreconditionError) as caught:
        call()
    return caught.value.reason


def test_a_paused_request_outlasts_the_death_of_all_servers_and_the_resume_timeout(
    installation: Installation,
) -> None:
    runner = installation.start_runner()
    client = installation.client
    paused, other = installation.create("p"), installation.create("o")
    installation.both_are_held(paused)
    installation.both_are_held(other)
    client.pause(paused)
    client.pause(paused)
    assert client.get(paused).waiting.endswith(": its running jobs end first")
    installation.open("p1")
    installation.open("p2")
    assert installation.wait_state(paused, State.SUSPENDED).finished_jobs == 4
    assert client.get(paused).waiting.startswith("paused at ")
    runner.kill()
    installation.manager.kill()
    installation.start_manager()
    runner = installation.start_runner()
    installation.both_are_held(other, times=2)  # It was taken over, so rounds have passed.
    assert runner.terminate() == 0
    # The other request is suspended now, and fails in time.
    installation.wait_state(other, State.FAIL)
    assert installation.wait_state(paused, State.SUSPENDED).waiting.startswith("paused at ")
    runner = installation.start_runner()
    installation.wait_state(client.create("plain").id, State.COMPLETE)
    client.resume(paused)
    assert installation.wait_state(paused, State.COMPLETE).waiting == ""
    assert installation.events(paused) == installation.events(paused, "COMPLETE") == ONCE
    assert reason_of(lambda: client.pause(paused)) == "WRONG_STATE"
    assert reason_of(lambda: client.resume(paused)) == "WRONG_STATE"


def test_a_pause_stops_running_jobs_only_with_now_and_uses_up_no_tries(installation: Installation) -> None:
    installation.start_runner()
    request_id = installation.create()
    installation.both_are_held(request_id)
    installation.client.pause(request_id)
    assert State(installation.client.get(request_id).state) is State.RUNNING
    installation.client.pause(request_id, now=True)
    installation.wait_state(request_id, State.SUSPENDED)
    assert installation.events(request_id, "STOPPED") == {"held1": 1, "held2": 1}
    installation.open("p1")
    installation.open("p2")
    installation.client.resume(request_id)
    installation.wait_state(request_id, State.COMPLETE)
    assert installation.events(request_id, "COMPLETE") == ONCE


def test_a_resume_continues_at_once_while_jobs_still_run(installation: Installation) -> None:
    installation.start_runner()
    request_id = installation.create()
    installation.both_are_held(request_id)
    installation.client.pause(request_id)
    installation.open("p1")
    eventually(lambda: any(entry.name == "held1" for entry in installation.client.log(request_id)))
    assert installation.events(request_id)["after1"] == 0
    installation.client.resume(request_id)
    eventually(lambda: installation.events(request_id, "COMPLETE")["after1"] == 1)
    assert State(installation.client.get(request_id).state) is State.RUNNING
    installation.open("p2")
    installation.wait_state(request_id, State.COMPLETE)
    assert installation.events(request_id) == ONCE


def test_a_paused_request_can_be_stopped(installation: Installation) -> None:
    installation.start_runner()
    for name, leaves in (("a", False), ("b", True)):
        request_id = installation.create(name)
        installation.both_are_held(request_id)
        installation.client.pause(request_id, now=leaves)
        if leaves:
            installation.wait_state(request_id, State.SUSPENDED)
        installation.client.stop(request_id)
        assert installation.wait_state(request_id, State.STOPPED).waiting == ""


def test_a_request_whose_runner_dies_while_it_is_paused_starts_nothing_on_another(
    installation: Installation,
) -> None:
    runner = installation.start_runner()
    request_id = installation.create()
    installation.both_are_held(request_id)
    installation.client.pause(request_id)
    runner.kill()
    installation.start_runner()
    installation.wait_state(request_id, State.SUSPENDED)
    assert installation.events(request_id) == {"first": 1, "held1": 1, "held2": 1}
    installation.open("p1")
    installation.open("p2")
    installation.client.resume(request_id)
    installation.wait_state(request_id, State.COMPLETE)
    assert installation.events(request_id, "COMPLETE") == ONCE


def test_a_pending_request_stays_pending_while_it_is_paused(installation: Installation) -> None:
    client = installation.client
    request_id = client.create("plain").id
    client.pause(request_id)
    installation.start_runner()
    installation.wait_state(client.create("plain").id, State.COMPLETE)
    assert State(client.get(request_id).state) is State.PENDING
    assert reason_of(lambda: client.start(request_id)) == "REQUEST_PAUSED"
    client.resume(request_id)
    installation.wait_state(request_id, State.COMPLETE)


def test_pauses_and_retries_are_kept_or_never_happened_whenever_the_manager_dies(
    installation: Installation,
) -> None:
    """One request lives through the death of a Request Manager in each call, on the same runner."""
    # A restart must not take so long that the runner suspends its chains.
    installation.environment["SPINCYCLE_JOB_RUNNER_LEASE"] = "30s"
    installation.manager.kill()
    installation.start_manager(point="pause is not committed")
    runner = installation.start_runner()
    client = installation.client
    first = installation.create()
    installation.both_are_held(first)
    installation.dies_in("PUT", f"{first}/pause")

    installation.start_manager(point="pause is committed")
    assert client.get(first).waiting == ""
    installation.dies_in("PUT", f"{first}/pause")

    installation.start_manager(point="end of a pause is committed")
    assert client.get(first).waiting.startswith("paused at ")
    # The runner learns of the pause without another call.
    runner.wait_for("chain told to pause", PROCESS_END)
    installation.open("p1")
    eventually(lambda: any(entry.name == "held1" for entry in client.log(first)))
    assert installation.events(first)["after1"] == 0
    installation.dies_in("PUT", f"{first}/resume")

    installation.start_manager(point="retry is not committed")
    eventually(lambda: installation.events(first, "COMPLETE")["after1"] == 1)
    client.stop(first)
    installation.wait_state(first, State.STOPPED)
    key = {"Idempotency-Key": "retry-4711"}
    installation.dies_in("POST", f"{first}/retry", **key)

    installation.start_manager(point="retry is committed")
    assert client.get(first).retried_by == ""
    installation.dies_in("POST", f"{first}/retry", **key)

    installation.start_manager()
    second = client.get(first).retried_by
    assert client.retry(first, idempotency_key="retry-4711").id == second
    assert [one.id for one in client.find()] == [second, first]
    installation.open("p2")
    installation.wait_state(second, State.COMPLETE)
    assert installation.events(second, "COMPLETE") == {"held2": 1, "after2": 1}


def test_a_paused_request_is_suspended_although_the_manager_that_takes_it_over_dies(
    installation: Installation,
) -> None:
    runner = installation.start_runner()
    request_id = installation.create()
    installation.both_are_held(request_id)
    installation.client.pause(request_id)
    runner.kill()
    installation.manager.kill()
    manager = installation.start_manager(point="paused request is taken over")
    installation.start_runner(must_report=False)  # The Request Manager may be dead by then.
    assert manager.process.wait(PROCESS_END) == -signal.SIGKILL
    installation.start_manager()
    installation.wait_state(request_id, State.SUSPENDED)
    assert installation.events(request_id) == {"first": 1, "held1": 1, "held2": 1}


def test_a_retry_needs_no_specs_and_waits_for_a_runner_that_knows_its_jobs(
    installation: Installation,
) -> None:
    """Nobody has the specs of the request any more, and the runner knows one of its job types no more."""
    runner = installation.start_runner()
    first = installation.create()
    installation.both_are_held(first)
    installation.client.pause(first, now=True)
    installation.wait_state(first, State.SUSPENDED)
    installation.client.stop(first)
    assert installation.wait_state(first, State.STOPPED).finished_jobs == 2
    # A runner that is killed counts until its lease is over, and could get the retry.
    assert runner.terminate() == 0
    installation.manager.kill()
    _, _, others = SPECS.partition("  plain:")
    installation.write_specs(f"sequences:\n  plain:{others}")
    installation.environment[UNKNOWN] = "held"
    installation.start_manager()
    older = installation.start_runner()
    second = installation.client.retry(first)
    # Until the new runner has said which job types it knows, there is no reason.
    reason = "no job runner knows the job type held"
    eventually(lambda: installation.client.get(second.id).waiting == reason)
    installation.client.pause(second.id)
    installation.open("p1")
    installation.open("p2")
    older.kill()
    del installation.environment[UNKNOWN]
    installation.start_runner()
    installation.wait_state(installation.client.create("plain").id, State.COMPLETE)
    waiting = installation.client.get(second.id)
    assert (State(waiting.state), waiting.finished_jobs) == (State.PENDING, 2)
    assert waiting.waiting.startswith("paused at ")
    installation.client.resume(second.id)
    installation.wait_state(second.id, State.COMPLETE)
    jobs = dict.fromkeys(("held1", "held2", "after1", "after2"), 1)
    assert installation.events(second.id) == installation.events(second.id, "COMPLETE") == jobs
