"""`spinc watch`: the lines of a request and of a filter, on a terminal and without one."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from spincycle_grpc import State, errors
from spincycle_grpc.v1.request_manager_pb2 import RunningJobs, WatchRequest, WatchReset, WatchResponse
from spincycle_grpc.v1.request_pb2 import RequestFilter
from spincycle_grpc.v1.state_pb2 import STATE_FAIL
from spincycle_grpc.v1.status_pb2 import JobStatus
from tests.cli.conftest import Spinc, Terminal, end
from tests.fake_manager import REQUEST_ID, FakeManager, entry, running_job, stage


def running(*jobs: JobStatus) -> RunningJobs:
    return RunningJobs(request_id=REQUEST_ID, jobs=jobs)


def life(state: Any) -> list[Any]:
    """Returns the messages of a request that ends in a state."""
    return [
        WatchResponse(
            cursor="1",
            requests=[stage(State.RUNNING, 1)],
            tries=[entry(1, error="exit status 7")],
            running=[running(running_job(2))],
            snapshot_complete=True,
        ),
        WatchResponse(cursor="1b"),
        WatchResponse(cursor="2", running=[running(running_job(2), running_job(1, job_id="c", name="copy"))]),
        WatchResponse(
            cursor="3",
            requests=[stage(state, 5)],
            tries=[entry(2, state=State.COMPLETE, exit=0), entry(1, job_id="c", name="copy", exit=0)],
            running=[running()],
        ),
    ]


def test_a_request_is_followed_to_its_end(manager: FakeManager, spinc: Spinc) -> None:
    manager.streams = [life(State.COMPLETE)]
    result = spinc("watch", REQUEST_ID)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        f"nap {REQUEST_ID}: RUNNING, 1 of 5 jobs",
        "  FAIL aB3x nap in 35ms, exit 7: exit status 7",
        "  RUNNING aB3x nap (try 2)",
        "  RUNNING c copy",
        "  COMPLETE aB3x nap (try 2) in 35ms",
        "  FAIL c copy in 35ms",
        f"nap {REQUEST_ID}: COMPLETE, 5 of 5 jobs in 1.5s",
    ]
    assert manager.requests("Watch") == [WatchRequest(request_id=REQUEST_ID)]


@pytest.mark.parametrize("state", [State.FAIL, State.STOPPED])
def test_a_request_that_does_not_complete_is_exit_status_1(
    state: State, manager: FakeManager, spinc: Spinc
) -> None:
    manager.streams = [life(state)]
    assert spinc("watch", REQUEST_ID).exit_code == 1


def test_a_broken_stream_is_continued_without_repeated_lines(manager: FakeManager, spinc: Spinc) -> None:
    begin, _, middle, last = life(State.COMPLETE)
    manager.streams = [
        [begin, errors.UnavailableError("shutting down", reason="SHUTTING_DOWN")],
        [middle, errors.ResourceExhaustedError("too slow", reason="WATCHER_TOO_SLOW")],
        [last],
    ]
    result = spinc("watch", REQUEST_ID)
    assert (result.exit_code, result.stderr) == (0, "")
    assert len(result.stdout.splitlines()) == 7
    assert [request.cursor for request in manager.requests("Watch")] == ["", "1", "2"]


def test_json_is_one_message_a_line(manager: FakeManager, spinc: Spinc) -> None:
    manager.streams = [life(State.FAIL)]
    result = spinc("watch", REQUEST_ID, "--json")
    assert result.exit_code == 1
    messages = [json.loads(line) for line in result.stdout.splitlines()]
    assert [message["cursor"] for message in messages] == ["1", "2", "3"]
    assert messages[-1]["requests"][0]["state"] == State.FAIL


def test_a_filter_shows_whose_jobs_they_are(manager: FakeManager, spinc: Spinc) -> None:
    manager.streams = [[*life(State.COMPLETE), WatchResponse(cursor="4", gone=["old"])]]
    result = spinc("watch", "--type", "nap", "--user=ann", "--state=fail", "--arg", "host=a", "--limit=7")
    lines = result.stdout.splitlines()
    assert lines[1] == f"  {REQUEST_ID} FAIL aB3x nap in 35ms, exit 7: exit status 7"
    assert lines[2] == f"  {REQUEST_ID} RUNNING aB3x nap (try 2)"
    assert lines[-1] == "old: deleted"
    chosen = RequestFilter(type="nap", user="ann", states=[STATE_FAIL], args=["host=a"], limit=7)
    assert manager.requests("Watch") == [WatchRequest(filter=chosen)]


def test_an_expired_cursor_is_explained(manager: FakeManager, spinc: Spinc) -> None:
    reset = WatchReset(reason="CURSOR_EXPIRED", message="the cursor is too old")
    manager.streams = [[WatchResponse(cursor="9", reset=reset), *life(State.COMPLETE)]]
    assert spinc("watch", REQUEST_ID).stdout.startswith("the cursor is too old\n")


@pytest.mark.parametrize("arguments", [(REQUEST_ID, "--type=nap"), (REQUEST_ID, "--limit=x"), ("a", "b")])
def test_an_id_and_a_filter_exclude_each_other(arguments: tuple[str, ...], spinc: Spinc) -> None:
    assert spinc("watch", *arguments).exit_code == 2


def test_an_unknown_request_is_refused(manager: FakeManager, spinc: Spinc) -> None:
    manager.streams = [[]]
    result = spinc("watch", "nosuch")
    assert (result.exit_code, result.stdout) == (3, "")
    assert "request nosuch not found" in result.stderr


def test_an_older_server_is_one_sentence(spinc: Spinc) -> None:
    result = spinc("watch", REQUEST_ID)
    assert result.exit_code == 5
    assert "does not know this method" in result.stderr


def test_a_terminal_shows_lines_above_a_bar(manager: FakeManager, terminal: Terminal) -> None:
    first, *rest = life(State.FAIL)
    may_end = threading.Event()
    manager.streams = [[first, may_end, *rest]]
    child = terminal("watch", REQUEST_ID)
    child.expect_exact("exit status 7")
    child.expect_exact("jobs, 1 running (nap), 1 retried")
    may_end.set()
    code, output = end(child)
    assert code == 1
    assert "5 of 5 jobs in 1.5s" in output


@pytest.mark.parametrize("kind", ["xterm", "dumb"])
def test_ctrl_c_ends_quietly(kind: str, manager: FakeManager, terminal: Terminal) -> None:
    manager.streams = [[life(State.COMPLETE)[0], threading.Event()]]
    child = terminal("watch", REQUEST_ID, kind=kind)
    child.expect_exact("exit status 7")
    child.sendintr()
    code, output = end(child)
    assert code == 130
    assert "Traceback" not in output
    assert "spinc:" not in output
    assert not manager.requests("Stop")


def test_names_and_errors_cannot_control_a_terminal(manager: FakeManager, terminal: Terminal) -> None:
    evil = entry(1, error="\x1b[31mred\x1b[2J", name="\x07")
    manager.streams = [[WatchResponse(cursor="1", tries=[evil])]]
    _, output = end(terminal("watch", kind="dumb"))
    assert r" red\x1b[2J" in output
    assert "\x1b" not in output
