"""Finally nodes run once, whatever ends a request: success, failure, a stop, a timeout, and dead servers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spincycle_grpc.state import State
from tests.e2e.installations import JournalInstallation
from tests.e2e.waiting import eventually
from tests.limits import PROCESS_END

SPECS = """
sequences:
  borrow:
    request: true
    args: {required: [{name: gate, desc: a file}], optional: [{name: times, desc: failures, default: "0"}]}
    nodes:
      step: {category: sequence, type: step, retry: 1, args: [{expected: gate}, {expected: times}]}
      next: {category: job, type: journal, deps: [step]}
    finally:
      report: {category: job, type: journal}
  step:
    args:
      required: [{name: gate, desc: a file}, {name: times, desc: failures}]
      static: [{name: told, default: "DIRECTORY/told"}]
    nodes:
      take: {category: job, type: journal}
      use: {category: job, type: held, args: [{expected: gate}], deps: [take]}
      break: {category: job, type: journal, args: [{expected: times}], deps: [use]}
    finally:
      give-back: {category: job, type: journal}
      tell: {category: job, type: held, args: [{expected: gate, given: told}], deps: [give-back]}
  hurry:
    request: true
    timeout: 300ms
    args: {required: [{name: gate, desc: a file}]}
    nodes:
      hurried: {category: sequence, type: held-step, args: [{expected: gate}]}
  held-step:
    args: {required: [{name: gate, desc: a file}]}
    nodes:
      use: {category: job, type: held, args: [{expected: gate}]}
    finally:
      give-back: {category: job, type: journal}
  too-slow:
    request: true
    args: {required: [{name: gate, desc: a file}]}
    nodes:
      only: {category: job, type: journal}
    finally:
      slow: {category: job, type: held, args: [{expected: gate}]}
    finallyTimeout: 300ms
  poison:
    request: true
    nodes:
      bad: {category: job, type: poison}
    finally:
      give-back: {category: job, type: journal}
  poison-in-finally:
    request: true
    nodes:
      step: {category: sequence, type: poisoned}
    finally:
      report: {category: job, type: journal}
  poisoned:
    nodes:
      take: {category: job, type: journal}
    finally:
      bad: {category: job, type: poison}
"""


class Installation(JournalInstallation):
    """A Request Manager, which runs, and Job Runners."""

    def __init__(self, directory: Path, stack: contextlib.ExitStack, database: str) -> None:
        specs = SPECS.replace("DIRECTORY", str(directory))
        patient = {"SPINCYCLE_RESUME_TIMEOUT": "60s"}
        super().__init__(directory, stack, specs, database=database, environment=patient)
        self.open("told")
        self.start_manager()

    def create(self, kind: str = "borrow", **args: str) -> str:
        return self.client.create(kind, args).id

    def begins(self, request_id: str, job: str, times: int = 1) -> None:
        eventually(lambda: self.events(request_id)[job] == times)


@pytest.fixture
def install(tmp_path: Path) -> Iterator[Callable[..., Installation]]:
    with contextlib.ExitStack() as stack:
        yield lambda database="": Installation(tmp_path, stack, database)


@pytest.fixture
def anywhere(install: Callable[..., Installation], migrated_url: str) -> Installation:
    """An installation on each database."""
    return install(migrated_url)


def test_finally_runs_after_success_and_after_the_last_try(anywhere: Installation) -> None:
    anywhere.start_runner()
    gate = anywhere.open("gate")
    good = anywhere.create(gate=gate)
    anywhere.wait_state(good, State.COMPLETE)
    assert anywhere.order(good) == ["take", "use", "break", "give-back", "tell", "next", "report"]
    second_try = anywhere.create(gate=gate, times="1")
    anywhere.wait_state(second_try, State.COMPLETE)
    once = ["give-back", "tell", "next", "report"]
    assert anywhere.order(second_try) == ["take", "use", "break"] * 2 + once
    bad = anywhere.create(gate=gate, times="9")
    anywhere.wait_state(bad, State.FAIL)
    assert anywhere.order(bad) == ["take", "use", "break"] * 2 + ["give-back", "tell", "report"]


def test_finally_runs_after_a_stop_and_outlasts_dead_servers(anywhere: Installation) -> None:
    """The runner dies while the part runs, and the Request Manager too. It goes on where it was."""
    anywhere.close("told")
    runner = anywhere.start_runner()
    stopped = anywhere.create(gate=anywhere.path("closed"))
    anywhere.begins(stopped, "use")
    anywhere.client.stop(stopped)
    anywhere.begins(stopped, "tell")
    found = anywhere.client.get(stopped)
    assert (State(found.state), State(found.ending)) == (State.RUNNING, State.STOPPED)
    runner.kill()
    anywhere.manager.kill()
    anywhere.start_manager()
    anywhere.start_runner()
    anywhere.begins(stopped, "tell", times=2)
    anywhere.open("told")
    found = anywhere.wait_state(stopped, State.STOPPED)
    assert not found.ending
    assert anywhere.events(stopped) == {"take": 1, "use": 1, "give-back": 1, "tell": 2, "report": 1}


def test_a_stop_of_a_suspended_request_starts_it_for_its_finally(anywhere: Installation) -> None:
    runner = anywhere.start_runner()
    request_id = anywhere.create(gate=anywhere.path("closed"))
    anywhere.begins(request_id, "use")
    assert runner.terminate() == 0
    anywhere.wait_state(request_id, State.SUSPENDED)
    anywhere.client.stop(request_id)
    found = anywhere.client.get(request_id)
    assert (State(found.state), State(found.ending)) == (State.SUSPENDED, State.STOPPED)
    anywhere.start_runner()
    anywhere.wait_state(request_id, State.STOPPED)
    assert anywhere.events(request_id) == {"take": 1, "use": 1, "give-back": 1, "tell": 1, "report": 1}


def test_a_second_stop_skips_finally(install: Callable[..., Installation]) -> None:
    installation = install()
    installation.close("told")
    runner = installation.start_runner()
    request_id = installation.create(gate=installation.path("closed"))
    installation.begins(request_id, "use")
    installation.client.stop(request_id)
    installation.begins(request_id, "tell")
    installation.client.stop(request_id)
    installation.wait_state(request_id, State.STOPPED)
    assert installation.events(request_id, "STOPPED") == {"use": 1, "tell": 1}
    assert "report" not in installation.order(request_id)
    # Nobody has it: the second stop ends it at once.
    waiting = installation.create(gate=installation.path("closed"))
    installation.begins(waiting, "use")
    assert runner.terminate() == 0
    installation.wait_state(waiting, State.SUSPENDED)
    installation.client.stop(waiting)
    installation.client.stop(waiting)
    installation.wait_state(waiting, State.STOPPED)
    assert "give-back" not in installation.order(waiting)


def test_a_request_that_has_not_begun_owes_nothing(install: Callable[..., Installation]) -> None:
    installation = install()
    request_id = installation.create(gate=installation.path("closed"))
    installation.client.stop(request_id)
    assert State(installation.client.get(request_id).state) is State.STOPPED


def test_finally_runs_after_a_timeout_and_has_one_itself(install: Callable[..., Installation]) -> None:
    installation = install()
    installation.start_runner()
    hurried = installation.create("hurry", gate=installation.path("closed"))
    installation.wait_state(hurried, State.FAIL)
    assert installation.events(hurried) == {"use": 1, "give-back": 1}
    slow = installation.create("too-slow", gate=installation.path("closed"))
    installation.wait_state(slow, State.FAIL)
    (entry,) = [one for one in installation.client.log(slow) if one.name == "slow"]
    assert entry.error == "sequence timed out after 300ms"


def test_a_pause_holds_finally_until_the_request_is_resumed(install: Callable[..., Installation]) -> None:
    installation = install()
    installation.close("told")
    installation.start_runner()
    request_id = installation.create(gate=installation.open("gate"))
    installation.begins(request_id, "tell")
    installation.client.pause(request_id, now=True)
    installation.wait_state(request_id, State.SUSPENDED)
    installation.open("told")
    installation.client.resume(request_id)
    installation.wait_state(request_id, State.COMPLETE)
    assert installation.events(request_id)["give-back"] == 1
    assert installation.events(request_id, "COMPLETE")["tell"] == 1


def test_a_retry_runs_finally_again_after_what_it_runs(install: Callable[..., Installation]) -> None:
    installation = install()
    installation.start_runner()
    first = installation.create(gate=installation.path("gate"))
    installation.begins(first, "use")
    installation.client.stop(first)
    installation.wait_state(first, State.STOPPED)
    installation.open("gate")
    second = installation.client.retry(first).id
    installation.wait_state(second, State.COMPLETE)
    assert installation.order(second) == ["use", "break", "give-back", "tell", "next", "report"]


def test_finally_runs_although_a_job_kills_its_runners(install: Callable[..., Installation]) -> None:
    """The first death makes it a suspect, and after three more it must FAIL. Its finally nodes run first."""
    installation = install()
    request_id = installation.create("poison")
    for _ in range(4):
        runner = installation.start_runner()
        runner.process.wait(PROCESS_END)
    installation.start_runner()
    installation.wait_state(request_id, State.FAIL)
    assert installation.events(request_id) == {"give-back": 1}
    assert installation.events(request_id, "poison") == {"bad": 4}


def test_a_suspended_request_that_nobody_resumes_fails_after_finally(
    install: Callable[..., Installation],
) -> None:
    installation = install()
    runner = installation.start_runner()
    request_id = installation.create(gate=installation.path("closed"))
    installation.begins(request_id, "use")
    assert runner.terminate() == 0
    installation.wait_state(request_id, State.SUSPENDED)
    installation.manager.terminate()
    patient = installation.environment["SPINCYCLE_RESUME_TIMEOUT"]
    installation.environment["SPINCYCLE_RESUME_TIMEOUT"] = "2s"
    installation.start_manager()
    eventually(lambda: State(installation.client.get(request_id).ending) is State.FAIL)
    # The finally nodes have as long again, which is too short for the start of a runner on a busy machine.
    installation.manager.kill()
    installation.environment["SPINCYCLE_RESUME_TIMEOUT"] = patient
    installation.start_manager()
    installation.start_runner()
    installation.wait_state(request_id, State.FAIL)
    assert installation.events(request_id)["report"] == 1


def test_a_finally_job_that_kills_its_runners_leaves_those_around_it(
    install: Callable[..., Installation],
) -> None:
    installation = install()
    request_id = installation.create("poison-in-finally")
    for _ in range(4):
        runner = installation.start_runner()
        runner.process.wait(PROCESS_END)
    installation.start_runner()
    installation.wait_state(request_id, State.FAIL)
    assert installation.order(request_id) == ["take", "report"]
    (bad,) = [one for one in installation.client.log(request_id) if one.name == "bad"]
    assert "job_runner.max_crashes" in bad.error
