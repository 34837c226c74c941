"""`spinc log --follow`: the output of one job and of all jobs of a request."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from spincycle_grpc import State, errors
from spincycle_grpc.v1.output_pb2 import (
    OUTPUT_GAP_REASON_LOST,
    OUTPUT_GAP_REASON_TRUNCATED,
    OUTPUT_STREAM_STDERR,
    OUTPUT_STREAM_STDOUT,
    OutputEnd,
    OutputGap,
    OutputText,
)
from spincycle_grpc.v1.request_manager_pb2 import FollowOutputResponse, RunningJobs, WatchResponse
from tests.cli.conftest import Spinc, Terminal, end
from tests.fake_manager import REQUEST_ID, FakeManager, entry, running_job, stage

OUT, ERR = OUTPUT_STREAM_STDOUT, OUTPUT_STREAM_STDERR


def text(text: str, stream: Any = OUT) -> FollowOutputResponse:
    return FollowOutputResponse(cursor="c", text=OutputText(stream=stream, text=text))


def gap(stream: Any, start: int, to: int, reason: Any) -> FollowOutputResponse:
    found = OutputGap(stream=stream, to=to, reason=reason)
    setattr(found, "from", start)
    return FollowOutputResponse(cursor="c", gap=found)


def ended(state: State = State.COMPLETE, number: int = 1, **fields: Any) -> FollowOutputResponse:
    last = OutputEnd(state=state.value, **fields)
    setattr(last, "try", number)
    return FollowOutputResponse(cursor="c", end=last)


def test_the_output_of_one_job_goes_to_the_streams_that_it_was_written_to(
    manager: FakeManager, spinc: Spinc
) -> None:
    manager.outputs["aB3x"] = [[text("one\ntw"), text("warning\n", ERR), text("o\n"), ended()]]
    result = spinc("log", "-f", REQUEST_ID, "aB3x")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "one\ntwo\n", "warning\n")


def test_after_a_failed_try_the_next_one_follows_until_the_request_has_ended(
    manager: FakeManager, spinc: Spinc
) -> None:
    manager.outputs["aB3x"] = [
        [text("1\n"), ended(State.FAIL, 4, exit=7, error="exit status 7")],
        [text("2\n"), ended(State.FAIL, 5)],
    ]
    result = spinc("log", "--follow", REQUEST_ID, "aB3x")
    assert result.stdout == "1\n2\n"
    assert result.exit_code == 0
    assert result.stderr.splitlines() == ["spinc: aB3x: FAIL, exit 7: exit status 7", "spinc: aB3x: FAIL"]
    assert [getattr(request, "try") for request in manager.requests("FollowOutput")] == [0, 5, 6]


def test_gaps_are_named(manager: FakeManager, spinc: Spinc) -> None:
    manager.outputs["aB3x"] = [
        [
            text("one"),
            gap(OUT, 3, 10, OUTPUT_GAP_REASON_TRUNCATED),
            gap(OUT, 10, 0, OUTPUT_GAP_REASON_LOST),
            gap(ERR, 5, 0, OUTPUT_GAP_REASON_LOST),
            text("again\n"),
            ended(),
        ]
    ]
    result = spinc("log", "-f", REQUEST_ID, "aB3x")
    assert result.stderr.splitlines() == [
        "spinc: aB3x: 7 bytes of stdout are missing",
        "spinc: aB3x: the job runner was lost, so the try runs again",
    ]
    assert result.stdout == "oneagain\n"


def test_json_is_the_messages_of_one_job(manager: FakeManager, spinc: Spinc) -> None:
    manager.outputs["aB3x"] = [[text("one\n"), FollowOutputResponse(cursor="c"), ended()]]
    result = spinc("log", "-f", "--json", REQUEST_ID, "aB3x")
    first, last = (json.loads(line) for line in result.stdout.splitlines())
    assert first == {"cursor": "c", "text": {"stream": "stdout", "offset": 0, "text": "one\n"}}
    assert last["end"]["state"] == State.COMPLETE
    refused = spinc("log", "-f", "--json", REQUEST_ID)
    assert refused.exit_code == 2
    assert "add --job" in refused.stderr


def test_an_unknown_job_is_refused(manager: FakeManager, spinc: Spinc) -> None:
    manager.failures["FollowOutput"] = [errors.NotFoundError("job zzzz not found", reason="JOB_NOT_FOUND")]
    result = spinc("log", "-f", REQUEST_ID, "zzzz")
    assert (result.exit_code, result.stdout) == (3, "")


def running(*jobs: Any) -> WatchResponse:
    return WatchResponse(cursor="1", running=[RunningJobs(request_id=REQUEST_ID, jobs=jobs)])


def last(*tries: Any) -> WatchResponse:
    return WatchResponse(cursor="2", requests=[stage(State.COMPLETE, 5)], tries=tries)


def test_the_lines_of_several_jobs_have_their_names(manager: FakeManager, spinc: Spinc) -> None:
    manager.streams = [
        [
            running(running_job(1), running_job(2, job_id="cccc", name="copy")),
            last(entry(1), entry(1, job_id="dddd")),
        ]
    ]
    release = manager.hold["FollowOutput"] = threading.Event()
    threading.Timer(0.5, release.set).start()
    for job_id in ("aB3x", "cccc", "dddd"):
        manager.outputs[job_id] = [[text(f"{job_id} 1\n{job_id} 2"), text("\n"), ended()]]
    result = spinc("log", "-f", REQUEST_ID)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert sorted(line.rpartition("| ")[2] for line in lines) == [
        "aB3x 1", "aB3x 2", "cccc 1", "cccc 2", "dddd 1", "dddd 2",
    ]  # fmt: skip
    assert "cccc copy (try 2) | cccc 1" in lines or "cccc 1" in lines
    assert any("| " in line for line in lines)
    assert len(manager.requests("FollowOutput")) == 3


def test_the_lines_of_a_single_job_have_no_name(manager: FakeManager, spinc: Spinc) -> None:
    manager.streams = [[running(running_job(1)), last(entry(1), entry(1, job_id="n", type="noop"))]]
    manager.outputs["aB3x"] = [[text("one\ntwo"), ended(State.FAIL, exit=1)]]
    result = spinc("log", "-f", REQUEST_ID)
    assert (result.exit_code, result.stdout) == (0, "one\ntwo\n")
    assert result.stderr == "spinc: aB3x nap: FAIL, exit 1\n"


def test_an_error_of_one_job_ends_the_command(manager: FakeManager, spinc: Spinc) -> None:
    manager.streams = [[running(running_job(1))], [WatchResponse(cursor="1")] * 3]
    manager.failures["FollowOutput"] = [errors.PermissionDeniedError("no", reason="ACCESS_DENIED")]
    result = spinc("log", "-f", REQUEST_ID)
    assert (result.exit_code, result.stderr) == (3, "spinc: no\n")


@pytest.mark.parametrize("arguments", [(REQUEST_ID,), (REQUEST_ID, "aB3x")])
def test_ctrl_c_ends_the_command_quietly(
    manager: FakeManager, terminal: Terminal, arguments: tuple[str, ...]
) -> None:
    manager.streams = [[running(running_job(1))] for _ in range(1000)]
    manager.outputs["aB3x"] = [[text("one\n")] for _ in range(1000)]
    child = terminal("log", "-f", *arguments)
    child.expect("one")
    child.sendintr()
    status, output = end(child)
    assert status == 130
    assert "Traceback" not in output
    assert "spinc:" not in output


def test_a_part_of_a_path_chooses_the_jobs_that_are_followed(manager: FakeManager, spinc: Spinc) -> None:
    manager.streams = [[running(running_job(1), running_job(1, job_id="bbbb")), last()]]
    manager.outputs["bbbb"] = [[text("chosen\n"), ended()]]
    assert spinc("log", "-f", REQUEST_ID, "--job", "nap").stdout == "chosen\n"
    assert {asked.job_id for asked in manager.requests("FollowOutput")} == {"bbbb"}
