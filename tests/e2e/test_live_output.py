"""The output of jobs while they run: real servers, shell commands and jobs of the SDK."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from spincycle_grpc import Client
from spincycle_grpc.state import State
from spincycle_grpc.v1 import request_manager_pb2 as messages
from spincycle_grpc.v1.output_pb2 import (
    OUTPUT_GAP_REASON_LOST,
    OUTPUT_GAP_REASON_TRUNCATED,
    OUTPUT_STREAM_STDERR,
    OUTPUT_STREAM_STDOUT,
    OutputEnd,
    OutputGap,
    OutputStream,
)
from spincycle_grpc.v1.request_manager_pb2_grpc import RequestManagerStub
from tests.databases import SharedServers, migrate
from tests.e2e.installations import Installation
from tests.e2e.waiting import eventually, wait_state
from tests.limits import ANSWER, COMMAND, REQUEST_END

OUT, ERR = OUTPUT_STREAM_STDOUT, OUTPUT_STREAM_STDERR

SPECS = """
sequences:
  talk:
    request: true
    args: {required: [{name: directory}]}
    nodes: {n: {category: job, type: talk, args: [{expected: directory, given: directory}], retry: 1}}
  threads:
    request: true
    nodes: {n: {category: job, type: threads}}
  count:
    request: true
    args: {required: [{name: directory}]}
    nodes: {n: {category: job, type: count, args: [{expected: directory, given: directory}]}}
  flood:
    request: true
    args: {required: [{name: directory}]}
    nodes: {n: {category: job, type: flood, args: [{expected: directory, given: directory}]}}
  run:
    request: true
    args: {required: [{name: cmd}, {name: args}]}
    nodes:
      n:
        category: job
        type: shell-command
        args: [{expected: cmd, given: cmd}, {expected: args, given: args}]
  later:
    request: true
    args: {required: [{name: directory}]}
    nodes:
      first: {category: job, type: talk, args: [{expected: directory, given: directory}]}
      last: {category: job, type: talk, args: [{expected: directory, given: directory}], deps: [first]}
"""

SCRIPT = """#!/bin/sh
echo one
printf 'caf\\303' >&2
while [ ! -e "$1/go" ]; do sleep 0.05; done
printf '\\251 \\377\\n' >&2
echo two
exit 3
"""


class Servers(Installation):
    """Request Managers, and a Job Runner, each in a process of its own."""

    def __init__(self, directory: Path, stack: contextlib.ExitStack, **options: Any) -> None:
        jobs = {"SPINCYCLE_JOBS": "tests.output_jobs:factory", "SPINCYCLE_JOB_RUNNER_LEASE": "4s"}
        super().__init__(directory, stack, SPECS, environment=jobs, **options)
        script = self.directory / "script"
        script.write_text(SCRIPT)
        script.chmod(0o755)

    def restart_manager(self) -> None:
        """Kills the Request Manager, and starts another one at its address."""
        self.manager.kill()
        self.start_manager()

    def stub(self, number: int = 0) -> Any:
        channel = grpc.insecure_channel(self.grpc(number))
        return RequestManagerStub(self.stack.enter_context(contextlib.closing(channel)))

    def create(self, request_type: str, **args: Any) -> tuple[str, str]:
        """Creates a request. Returns its id and the id of its first job."""
        http = self.http()
        answer = http.post("/api/v1/requests", json={"type": request_type, "args": args})
        assert answer.status_code == 201, answer.text
        request_id = str(answer.json()["id"])
        jobs = http.get(f"/api/v1/requests/{request_id}/job-chain").json()["jobs"]
        (job_id,) = [key for key, job in jobs.items() if job["name"] in ("n", "first")]
        return request_id, job_id

    def go(self) -> None:
        self.open("go")


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    with contextlib.ExitStack() as stack:
        servers = Servers(tmp_path, stack)
        servers.start_manager()
        yield servers


class Following:
    """A call of FollowOutput, and what it has said so far."""

    def __init__(self, stub: Any, request_id: str, job_id: str, **fields: Any) -> None:
        request = messages.FollowOutputRequest(request_id=request_id, job_id=job_id, **fields)
        self._call = stub.FollowOutput(request, timeout=REQUEST_END)
        self.texts = {OUT: "", ERR: ""}
        self.gaps: list[OutputGap] = []
        self.end: OutputEnd | None = None
        self.cursor = ""

    def read(self, *, until: str = "", stream: OutputStream.ValueType = OUT) -> str:
        """Reads until a stream has a text, or to the end. Returns the text of the stream so far."""
        while not until or until not in self.texts[stream]:
            message = next(self._call, None)
            if message is None:
                assert not until, f"no {until!r} in {self.texts}"
                break
            self.cursor = message.cursor
            if message.HasField("text"):
                self.texts[message.text.stream] += message.text.text
            elif message.HasField("gap"):
                self.gaps.append(message.gap)
            elif message.HasField("end"):
                self.end = message.end
        return self.texts[stream]

    def cancel(self) -> None:
        self._call.cancel()


def test_a_line_of_a_job_is_seen_while_the_job_runs(servers: Servers) -> None:
    servers.start_runner()
    request_id, job_id = servers.create("talk", directory=str(servers.directory))
    following = Following(servers.stub(), request_id, job_id)
    assert following.read(until="one\n") == "one\n"
    assert following.read(until="é\n", stream=ERR) == "warning é\n"
    servers.go()
    assert following.read() == "one\ntwo\nthree\n"
    assert following.end is not None
    assert (following.end.state, getattr(following.end, "try")) == (State.COMPLETE.value, 1)
    assert following.gaps == []
    entry = servers.http().get(f"/api/v1/requests/{request_id}/log/{job_id}").json()
    assert (entry["stdout"], entry["stderr"]) == ("one\ntwo\nthree\n", "warning é\n")


def test_a_shell_command_is_seen_as_it_writes_and_split_or_invalid_characters_do_not_matter(
    servers: Servers,
) -> None:
    servers.start_runner()
    request_id, job_id = servers.create(
        "run", cmd=str(servers.directory / "script"), args=str(servers.directory)
    )
    following = Following(servers.stub(), request_id, job_id)
    assert following.read(until="one\n") == "one\n"
    assert following.read(until="caf", stream=ERR) == "caf"
    servers.go()
    assert following.read() == "one\ntwo\n"
    assert following.texts[ERR] == "café \ufffd\n"
    assert following.end is not None
    assert (following.end.state, following.end.exit) == (State.FAIL.value, 3)
    entry = servers.http().get(f"/api/v1/requests/{request_id}/log/{job_id}").json()
    assert (entry["stdout"], entry["stderr"]) == ("one\ntwo\n", "café \ufffd\n")


def test_a_reader_resumes_from_its_cursor_while_the_job_runs_and_after_its_end(servers: Servers) -> None:
    servers.start_runner()
    request_id, job_id = servers.create("talk", directory=str(servers.directory))
    first = Following(servers.stub(), request_id, job_id)
    first.read(until="one\n")
    first.read(until="é\n", stream=ERR)
    first.cancel()
    second = Following(servers.stub(), request_id, job_id, cursor=first.cursor)
    servers.go()
    assert second.read(until="two\n").startswith("two\n")  # What follows may already be there.
    second.cancel()
    wait_state(servers.http(), request_id, State.COMPLETE)
    third = Following(servers.stub(), request_id, job_id, cursor=second.cursor)
    rest = third.read()
    assert second.texts[OUT] + rest == "two\nthree\n"
    assert second.texts[ERR] + third.texts[ERR] == ""
    by_offset = Following(servers.stub(), request_id, job_id, stdout_offset=5, stderr_offset=9)
    assert by_offset.read() == "wo\nthree\n"
    assert by_offset.texts[ERR] == "é\n"  # The offset is inside the character.


def test_over_http_the_output_is_server_sent_events_that_resume_from_the_last_id(servers: Servers) -> None:
    servers.start_runner()
    request_id, job_id = servers.create("talk", directory=str(servers.directory))
    path = f"/api/v1/requests/{request_id}/log/{job_id}/output"
    http = servers.http()
    with http.stream("GET", path) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        last_id, event = next(events(answer))
    assert event["text"] == {"stream": "stdout", "offset": 0, "text": "one\n"}
    servers.go()
    wait_state(http, request_id, State.COMPLETE)
    with http.stream("GET", path, headers={"Last-Event-ID": last_id}) as answer:
        rest = [event for _, event in events(answer)]
    texts = [event["text"]["text"] for event in rest if "text" in event]
    assert texts == ["two\nthree\n", "warning é\n"]
    assert rest[-1]["end"] == {"state": State.COMPLETE, "exit": 0, "error": "", "try": 1}
    assert http.get(f"/api/v1/requests/{request_id}/log/zzzz/output").status_code == 404


def events(answer: httpx.Response) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the id and the data of each message of an answer."""
    last_id = ""
    for line in answer.iter_lines():
        name, _, value = line.partition(": ")
        if name == "id":
            last_id = value
        elif name == "data" and last_id:
            yield last_id, json.loads(value)
            last_id = ""


@pytest.mark.parametrize("is_one_job", [True, False])
def test_spinc_shows_a_line_while_the_job_runs_and_ends_with_the_request(
    servers: Servers, is_one_job: bool
) -> None:
    servers.start_runner()
    request_id, job_id = servers.create("talk", directory=str(servers.directory))
    spinc = subprocess.Popen(
        [sys.executable, "-m", "spincycle_grpc.cli", "log", "-f", request_id, *[job_id] * is_one_job],
        env={**os.environ, "SPINC_ADDR": servers.grpc()},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert spinc.stdout is not None
    assert spinc.stdout.readline() == b"one\n"
    servers.go()
    stdout, stderr = spinc.communicate(timeout=COMMAND)
    assert (spinc.returncode, stdout) == (0, b"two\nthree\n")
    assert stderr.decode() == "warning é\n"


def test_every_request_manager_shows_the_output(database_servers: SharedServers, tmp_path: Path) -> None:
    url = database_servers.url("mariadb", tmp_path)
    migrate(url)
    with contextlib.ExitStack() as stack:
        servers = Servers(tmp_path, stack, database=url, managers=2)
        servers.start_manager(0)
        servers.start_runner(managers=1)
        servers.start_manager(1)
        request_id, job_id = servers.create("talk", directory=str(servers.directory))
        following = Following(servers.stub(1), request_id, job_id)
        assert following.read(until="one\n") == "one\n"
        servers.go()
        assert following.read() == "one\ntwo\nthree\n"


def test_after_the_loss_of_a_runner_the_new_run_of_the_try_follows_a_gap(servers: Servers) -> None:
    lost = servers.start_runner()
    request_id, job_id = servers.create("talk", directory=str(servers.directory))
    following = Following(servers.stub(), request_id, job_id)
    following.read(until="one\n")
    following.read(until="é\n", stream=ERR)
    lost.kill()
    servers.start_runner()
    following.read(until="one\none\n")
    lost_gaps = [(gap.stream, getattr(gap, "from"), gap.to, gap.reason) for gap in following.gaps]
    assert lost_gaps == [(OUT, 4, 0, OUTPUT_GAP_REASON_LOST), (ERR, 11, 0, OUTPUT_GAP_REASON_LOST)]
    servers.go()
    assert following.read() == "one\none\ntwo\nthree\n"
    assert following.end is not None
    assert getattr(following.end, "try") == 1


def test_a_client_misses_and_repeats_nothing_while_the_request_manager_is_killed_and_restarted(
    servers: Servers,
) -> None:
    # The runner keeps its chain while there is no Request Manager.
    servers.environment["SPINCYCLE_JOB_RUNNER_LEASE"] = "10m"
    servers.restart_manager()
    servers.start_runner()
    request_id, job_id = servers.create("count", directory=str(servers.directory))
    texts = {OUT: "", ERR: ""}
    kills = 0
    with Client(servers.grpc(), deadline=REQUEST_END) as client:
        for message in client.follow_output(request_id, job_id):
            assert not message.HasField("gap")
            text = message.text
            assert text.offset == len(texts[text.stream or OUT].encode()) or not text.text
            texts[text.stream or OUT] += text.text
            if texts[OUT].count("\n") > 20 * (kills + 1):
                kills += 1
                if kills > 3:
                    servers.go()
                else:
                    servers.restart_manager()
    assert kills > 3
    entry = servers.http().get(f"/api/v1/requests/{request_id}/log/{job_id}").json()
    assert texts == {OUT: entry["stdout"], ERR: entry["stderr"]}


def test_a_job_that_has_not_begun_is_awaited_and_a_stop_ends_the_stream(servers: Servers) -> None:
    servers.start_runner()
    request_id, job_id = servers.create("later", directory=str(servers.directory))
    http = servers.http()
    jobs = http.get(f"/api/v1/requests/{request_id}/job-chain").json()["jobs"]
    (last,) = [key for key, job in jobs.items() if job["name"] == "last"]
    following = Following(servers.stub(), request_id, job_id)
    waiting = Following(servers.stub(), request_id, last)
    following.read(until="one\n")
    assert http.put(f"/api/v1/requests/{request_id}/stop").status_code == 200
    assert following.read() == "one\nstopped"
    assert following.end is not None
    assert following.end.state == State.STOPPED.value
    with pytest.raises(grpc.RpcError) as raised:
        waiting.read()
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


def test_output_that_is_written_faster_than_it_is_kept_has_a_gap_and_its_end(servers: Servers) -> None:
    runner = servers.start_runner()
    request_id, job_id = servers.create("flood", directory=str(servers.directory))
    following = Following(servers.stub(), request_id, job_id)
    following.read(until="x" * 999)
    eventually(lambda: written(servers, request_id, job_id) > 50_000_000)
    servers.go()
    following.read()
    assert following.texts[OUT].endswith("x\nthe end\n")
    assert following.gaps
    assert {gap.reason for gap in following.gaps} == {OUTPUT_GAP_REASON_TRUNCATED}
    entry = servers.http().get(f"/api/v1/requests/{request_id}/log/{job_id}").json()
    assert len(entry["stdout"]) <= 1 << 20
    missing = sum(gap.to - getattr(gap, "from") for gap in following.gaps)
    cut = re.search(r"\n\[\.\.\. (\d+) bytes cut out \.\.\.\]\n", entry["stdout"])
    assert cut is not None
    total = len(entry["stdout"]) - len(cut[0]) + int(cut[1])
    assert len(following.texts[OUT]) + missing == total
    assert not [event for event in runner.events if event["level"] == "error"]


def written(servers: Servers, request_id: str, job_id: str) -> int:
    """Returns how much a running job has written so far: the offset of the newest text."""
    call = servers.stub().FollowOutput(
        messages.FollowOutputRequest(request_id=request_id, job_id=job_id), timeout=ANSWER
    )
    newest = 0
    for message in call:
        newest = max(newest, message.text.offset)
        if message.HasField("gap") or newest > 50_000_000:
            newest = max(newest, message.gap.to)
            break
    call.cancel()
    return newest


def test_many_followers_all_get_everything_that_many_threads_write(servers: Servers) -> None:
    servers.start_runner()
    request_id, job_id = servers.create("threads")
    stub = servers.stub()
    followers = [Following(stub, request_id, job_id) for _ in range(50)]
    expected = {
        stream: sorted(f"{thread}:{number}" for thread in threads for number in range(1000))
        for stream, threads in ((OUT, (0, 2)), (ERR, (1, 3)))
    }
    for follower in followers:
        follower.read()
        assert follower.gaps == []
        assert {stream: sorted(text.split()) for stream, text in follower.texts.items()} == expected


def test_streams_end_when_the_request_manager_stops(servers: Servers) -> None:
    servers.start_runner()
    request_id, job_id = servers.create("talk", directory=str(servers.directory))
    following = Following(servers.stub(), request_id, job_id)
    following.read(until="one\n")
    servers.managers[0].process.send_signal(signal.SIGTERM)
    with pytest.raises(grpc.RpcError) as raised:
        following.read()
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    servers.go()


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"stdout_offset": 99}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"cursor": "x"}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"job_id": "zzzz"}, grpc.StatusCode.NOT_FOUND),
        ({"request_id": "nosuch"}, grpc.StatusCode.NOT_FOUND),
    ],
)
def test_wrong_calls_about_a_running_job_are_refused(
    servers: Servers, fields: dict[str, Any], code: grpc.StatusCode
) -> None:
    servers.start_runner()
    request_id, job_id = servers.create("talk", directory=str(servers.directory))
    Following(servers.stub(), request_id, job_id).read(until="one\n")
    following = Following(servers.stub(), **{"request_id": request_id, "job_id": job_id, **fields})
    with pytest.raises(grpc.RpcError) as raised:
        following.read()
    assert raised.value.code() is code
    servers.go()
