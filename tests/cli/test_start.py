"""`spinc start`: the request that is sent, following it, and prompts on a terminal."""

from __future__ import annotations

import json
import threading

import pytest

from spincycle_grpc import State, errors
from spincycle_grpc.v1.request_manager_pb2 import RunningJobs, WatchResponse
from tests.cli.conftest import Spinc, Terminal, end
from tests.fake_manager import REQUEST_ID, FakeManager, entry, running_job, stage


def test_it_prints_the_id(manager: FakeManager, spinc: Spinc) -> None:
    result = spinc("start", "nap", "ms=300", "hosts:=[1, true]")
    assert (result.exit_code, result.stdout) == (0, f"{REQUEST_ID}\n")
    [request] = manager.requests("Create")
    assert (request.type, request.args["ms"], list(request.args["hosts"])) == ("nap", "300", [1, True])
    assert json.loads(spinc("start", "nap", "--json").stdout)["id"] == REQUEST_ID
    assert not manager.requests("RequestList")


def test_unknown_args_are_refused(manager: FakeManager, spinc: Spinc) -> None:
    error = errors.InvalidArgumentError(
        "request nap has no arg 'mss': did you mean ms?", reason="UNKNOWN_ARG", field="args.mss"
    )
    for command, method in (("start", "Create"), ("plan", "Plan")):
        manager.failures[method] = [error]
        result = spinc(command, "nap", "mss=300")
        assert (result.exit_code, result.stdout) == (3, "")
        assert "did you mean ms?" in result.stderr
        assert manager.requests(method)[0].strict_args


def test_the_idempotency_key_is_sent_unchanged(manager: FakeManager, spinc: Spinc) -> None:
    assert spinc("start", "nap", "--idempotency-key", "deploy 42").exit_code == 0
    assert manager.requests("Create")[0].idempotency_key == "deploy 42"
    manager.failures["Create"] = [
        errors.ConflictError("the idempotency key was used", reason="IDEMPOTENCY_KEY_REUSED")
    ]
    result = spinc("start", "nap", "--idempotency-key=deploy 42")
    assert (result.exit_code not in (0, 1), result.stdout) == (True, "")
    assert "the idempotency key was used" in result.stderr


def test_without_a_terminal_waiting_prints_lines(manager: FakeManager, spinc: Spinc) -> None:
    manager.stages = [stage(State.PENDING), stage(State.RUNNING, 2), stage(State.COMPLETE, 5)]
    manager.stages[0].waiting = "no job runner has the label zone=a"
    result = spinc("start", "nap", "--wait")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"nap {REQUEST_ID}: PENDING, 0 of 5 jobs (no job runner has the label zone=a)",
        f"nap {REQUEST_ID}: RUNNING, 2 of 5 jobs",
        f"nap {REQUEST_ID}: COMPLETE, 5 of 5 jobs in 1.5s",
    ]


def test_a_stopped_request_is_exit_status_1(manager: FakeManager, spinc: Spinc) -> None:
    manager.stages = [stage(State.RUNNING, 1), stage(State.STOPPED, 2)]
    result = spinc("start", "nap", "--wait", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["state"] == State.STOPPED
    assert "STOPPED, 2 of 5 jobs in 1.5s\n" in spinc("start", "nap", "--wait").stdout


def test_a_wait_survives_an_unavailable_server(manager: FakeManager, spinc: Spinc) -> None:
    manager.failures["Get"] = [errors.UnavailableError("shutting down")] * 6
    result = spinc("start", "nap", "--wait")
    assert (result.exit_code, result.stderr) == (0, "")
    assert len(manager.requests("Get")) == 7


def test_on_a_terminal_it_asks_for_missing_args(manager: FakeManager, terminal: Terminal) -> None:
    child = terminal("start", "nap")
    child.expect_exact("ms (How long): ")
    child.sendline("")
    child.expect_exact("ms (How long): ")
    child.sendline("300")
    child.expect_exact("host (Where) [localhost]: ")
    child.sendline("")
    child.expect_exact("tags [[1, 2]]: ")
    child.sendline(":=[")
    child.expect_exact("must be JSON")
    child.expect_exact("tags [[1, 2]]: ")
    child.sendline(":=[3]")
    child.expect_exact(f"spinc status {REQUEST_ID}")
    assert end(child)[0] == 0
    [request] = manager.requests("Create")
    assert sorted(request.args.fields) == ["ms", "tags"]
    assert (request.args["ms"], list(request.args["tags"])) == ("300", [3])


def test_it_does_not_ask_for_given_args(manager: FakeManager, terminal: Terminal) -> None:
    child = terminal("start", "nap", "host=db1")
    child.expect_exact("ms (How long): ")
    child.sendline("1")
    child.expect_exact("tags [[1, 2]]: ")
    child.sendline("")
    assert end(child)[0] == 0
    assert sorted(manager.requests("Create")[0].args.fields) == ["host", "ms"]


@pytest.mark.parametrize("arguments", [("nap", "ms=1"), ("plain",), ("nosuch",), ("nap", "--json")])
def test_it_asks_nothing_if_no_required_arg_is_missing(
    arguments: tuple[str, ...], manager: FakeManager, terminal: Terminal
) -> None:
    code, _ = end(terminal("start", *arguments))
    assert code == 0
    assert len(manager.requests("Create")) == 1


@pytest.mark.parametrize("send", ["sendintr", "sendeof"])
def test_an_interrupted_prompt_starts_nothing(send: str, manager: FakeManager, terminal: Terminal) -> None:
    child = terminal("start", "nap")
    child.expect_exact("ms (How long): ")
    getattr(child, send)()
    code, output = end(child)
    assert code == 130
    assert "nothing was started" in output
    assert not manager.requests("Create")


def test_prompts_cannot_control_a_terminal(manager: FakeManager, terminal: Terminal) -> None:
    manager.specs[0].args[0].desc = "\x1b[31mred"
    child = terminal("start", "nap")
    child.expect_exact(r"ms (\x1b[31mred): ")
    child.sendintr()
    end(child)


def test_a_terminal_shows_a_progress_bar(manager: FakeManager, terminal: Terminal) -> None:
    may_end = threading.Event()
    manager.log = [entry(2), entry(1, job_id="done", state=State.FAIL)]
    manager.streams = [
        [
            WatchResponse(
                cursor="1",
                requests=[stage(State.RUNNING, 2)],
                tries=manager.log,
                running=[RunningJobs(request_id=REQUEST_ID, jobs=[running_job(3)])],
            ),
            may_end,
            WatchResponse(cursor="2", requests=[stage(State.FAIL, 4)]),
        ]
    ]
    child = terminal("start", "plain", "--wait")
    child.expect_exact("2/5")
    child.expect_exact("jobs, 1 running, 1 retried, 1 failed")
    may_end.set()
    code, output = end(child)
    assert code == 1
    assert f"nap {REQUEST_ID}: \x1b[31mFAIL\x1b[0m, 4 of 5 jobs in 1.5s" in output


def test_a_dumb_terminal_shows_lines(manager: FakeManager, terminal: Terminal) -> None:
    manager.stages = [stage(State.RUNNING, 1), stage(State.COMPLETE, 5)]
    code, output = end(terminal("start", "plain", "--wait", kind="dumb"))
    assert code == 0
    assert "RUNNING, 1 of 5 jobs" in output


@pytest.mark.parametrize("has_room", [True, False])
def test_a_server_that_cannot_be_watched_is_polled_for_the_progress_bar(
    has_room: bool, manager: FakeManager, terminal: Terminal
) -> None:
    manager.stages = [stage(State.RUNNING, done) for done in range(1, 5)] + [stage(State.COMPLETE, 5)]
    if not has_room:
        manager.streams = [[errors.ResourceExhaustedError("full", reason="TOO_MANY_WATCHERS")]]
    child = terminal("start", "plain", "--wait")
    child.expect_exact("2/5")
    code, output = end(child)
    assert code == 0
    assert "COMPLETE" in output


def test_ctrl_c_leaves_the_request_running(manager: FakeManager, terminal: Terminal) -> None:
    manager.stages = [stage(State.RUNNING, 2)]
    child = terminal("start", "plain", "--wait")
    child.expect_exact("2/5")
    child.sendintr()
    code, output = end(child)
    assert code == 130
    assert f"request {REQUEST_ID} still runs" in output
    assert f"spinc stop {REQUEST_ID}" in output
    assert "Traceback" not in output
    assert not manager.requests("Stop")


def test_ctrl_c_while_the_server_is_silent(manager: FakeManager, terminal: Terminal) -> None:
    manager.hold["Create"] = threading.Event()
    child = terminal("start", "plain")
    assert manager.asked_often(2)
    child.sendintr()
    code, output = end(child)
    assert code == 130
    assert "the request may exist" in output
    assert "Traceback" not in output


def test_a_narrow_terminal_shows_the_numbers_without_a_bar(manager: FakeManager, terminal: Terminal) -> None:
    may_end = threading.Event()
    snapshot = RunningJobs(request_id=REQUEST_ID, jobs=[running_job(3)])
    first = WatchResponse(cursor="1", requests=[stage(State.RUNNING, 2)], running=[snapshot])
    manager.streams = [[first, may_end, WatchResponse(cursor="2", requests=[stage(State.COMPLETE, 5)])]]
    child = terminal("start", "plain", "--wait", columns=60)
    child.expect(r"nap \S*2/5\S* jobs, 1 running, 1 retried")
    may_end.set()
    assert end(child)[0] == 0
