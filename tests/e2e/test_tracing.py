"""Whole traces: two Request Managers, Job Runners that are killed, and a collector that comes and goes."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from spincycle_grpc import Client, State, TraceContext
from tests.databases import SharedServers
from tests.e2e import installations
from tests.e2e.waiting import eventually, wait_state
from tests.limits import COMMAND
from tests.telemetry.collector import Collector, Received, collecting

TRACE = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", 1, "rojo=1")
SPECS = """
sequences:
  two-steps:
    request: true
    args:
      static: [{{name: first, default: "{directory}/first"}}, {{name: second, default: "{directory}/second"}}]
    nodes:
      first: {{category: job, type: shell-command, args: [{{expected: cmd, given: first}}]}}
      second: {{category: job, type: shell-command, deps: [first], args: [{{expected: cmd, given: second}}]}}
"""
SCRIPT = """#!/bin/sh
echo "$TRACEPARENT" | tee -a {directory}/began-$(basename $0)
while test -e {directory}/gate-$(basename $0); do sleep 0.02; done
"""


class Installation(installations.Installation):
    """Two Request Managers and a Job Runner, with one database and one collector."""

    def __init__(self, directory: Path, url: str, collector: Collector, stack: contextlib.ExitStack) -> None:
        specs = SPECS.format(directory=directory)
        variables = {
            "SPINCYCLE_JOBS": "",
            "SPINCYCLE_JOB_RUNNER_LEASE": "2s",
            "SPINCYCLE_TELEMETRY_OTLP": collector.url,
        }
        super().__init__(directory, stack, specs, database=url, managers=2, environment=variables)
        for name in ("first", "second"):
            script = directory / name
            script.write_text(SCRIPT.format(directory=directory))
            script.chmod(0o755)
        for number, ratio in enumerate(("1", "0")):
            self.start_manager(number, environment={"SPINCYCLE_TELEMETRY_SAMPLE_RATIO": ratio})
        self.runner = self.start_runner()

    def traced(self, manager: int, trace: TraceContext | None) -> Client:
        """Returns a client of a Request Manager whose calls belong to a trace."""
        return self.stack.enter_context(Client(self.grpc(manager), trace=trace))

    def began(self, step: str) -> list[str]:
        """Returns the traceparent of each try of a step that has begun."""
        file = self.directory / f"began-{step}"
        return file.read_text().split() if file.exists() else []


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture
def installation(tmp_path: Path, migrated_mariadb: str, collector: Collector) -> Iterator[Installation]:
    with contextlib.ExitStack() as stack:
        yield Installation(tmp_path, migrated_mariadb, collector, stack)


@pytest.fixture
def migrated_mariadb(database_servers: SharedServers, tmp_path: Path) -> str:
    url = database_servers.url("mariadb", tmp_path)
    subprocess.run(
        [sys.executable, "-m", "spincycle_server", "migrate", "--db", url],
        check=True,
        timeout=COMMAND,
        capture_output=True,
    )
    return url


def named(spans: Sequence[Received], name: str) -> list[Received]:
    return sorted((span for span in spans if span.name == name), key=lambda span: span.started_at)


def test_a_trace_stays_whole_when_servers_are_killed(
    installation: Installation, collector: Collector
) -> None:
    gate = installation.directory / "gate-second"
    gate.touch()
    request = installation.traced(0, TRACE).create("two-steps")
    assert request.trace_id == TRACE.trace_id
    eventually(lambda: installation.began("second"))
    # The spans so far have left the servers that die now.
    collector.wait_for(TRACE.trace_id, "spincycle.v1.RequestManager/Create", "job shell-command", "deliver")
    eventually(lambda: len(named(collector.of_trace(TRACE.trace_id), "commit")) >= 2)
    installation.runner.kill()
    installation.managers[0].kill()
    installation.start_runner()
    eventually(lambda: len(installation.began("second")) > 1)
    gate.unlink()
    wait_state(installation.http(1), request.id, State.COMPLETE)
    collector.wait_for(TRACE.trace_id, "request two-steps", "takeover")
    eventually(lambda: is_complete(collector, "second"))
    spans = collector.of_trace(TRACE.trace_id)
    check_whole(spans, request.id)
    first, *_, second = named(spans, "job shell-command")
    (root,) = named(spans, "request two-steps")
    *_, takeover = named(spans, "takeover")  # On a slow machine, the new runner may lose its lease too.
    assert first.attributes["spincycle.epoch"] == 1
    epochs = {span.attributes["spincycle.epoch"] for span in (root, takeover, second)}
    assert epochs != {1}
    assert len(epochs) == 1
    assert first.ended_at < takeover.started_at < takeover.ended_at < second.ended_at <= root.ended_at
    # Each try works within its own span, also the one that died without a span.
    killed, *_, repeated = (TraceContext.parse(began) for began in installation.began("second"))
    assert killed == TRACE._replace(span_id=killed.span_id if killed else "", state="")
    assert repeated == TRACE._replace(span_id=second.span_id, state="")
    assert killed != repeated
    line = installation.managers[1].wait_for("request taken over", request_id=request.id)
    assert (line["trace_id"], line["span_id"]) == (TRACE.trace_id, root.span_id)


def is_complete(collector: Collector, name: str) -> bool:
    """Whether the span of a COMPLETE try of a job has arrived."""
    return any(
        span.attributes["spincycle.job.name"] == name
        for span in named(collector.of_trace(TRACE.trace_id), "job shell-command")
        if span.attributes["spincycle.job.state"] == "COMPLETE"
    )


def check_whole(spans: Sequence[Received], request_id: str) -> None:
    """Checks that the spans of a trace form one tree below the caller's span, and who has sent them."""
    ids = {span.span_id for span in spans}
    assert len(ids) == len(spans)
    (call,) = named(spans, "spincycle.v1.RequestManager/Create")
    (root,) = named(spans, "request two-steps")
    assert call.parent_id == TRACE.span_id
    assert root.parent_id == call.span_id
    assert all(span.parent_id in ids for span in spans if span is not call)
    assert {span.state for span in spans if span.name != "commit"} == {TRACE.state}
    assert {span.attributes["spincycle.request.id"] for span in spans} == {request_id}
    (build,) = named(spans, "build")
    assert build.parent_id == call.span_id
    commits = named(spans, "commit")
    assert [commit.parent_id for commit in commits[:1]] == [call.span_id]
    assert {commit.parent_id for commit in commits[1:]} == {root.span_id}
    for name in ("job shell-command", "deliver", "takeover"):
        assert {span.parent_id for span in named(spans, name)} == {root.span_id}
    senders = {span.name: span.service for span in spans}
    assert senders["job shell-command"] == "spincycle-job-runner"
    assert {senders[name] for name in senders.keys() - {"job shell-command"}} == {"spincycle-request-manager"}


def test_sampling_and_a_collector_that_is_away(installation: Installation, collector: Collector) -> None:
    unsampled = TraceContext("1" * 32, "2" * 16, 0)
    http = installation.http(1)
    body = {"type": "two-steps", "args": {}}
    # The second Request Manager samples no new trace, and leaves the decision about others to their callers.
    untraced = http.post("/api/v1/requests", json=body).json()
    by_caller = http.post("/api/v1/requests", json=body, headers=dict(TRACE.headers())).json()
    refused = http.post("/api/v1/requests", json=body, headers=dict(unsampled.headers())).json()
    # The first one samples all new traces.
    new = installation.traced(0, None).create("two-steps")
    requests = [untraced["id"], by_caller["id"], refused["id"], new.id]
    for request_id in requests:
        wait_state(http, request_id, State.COMPLETE)
    assert "traceId" not in untraced
    assert refused["traceId"] == unsampled.trace_id
    spans = collector.wait_for(TRACE.trace_id, "POST /api/v1/requests", "request two-steps")
    (call,) = named(spans, "POST /api/v1/requests")
    assert (call.attributes["http.route"], call.parent_id) == ("/api/v1/requests", TRACE.span_id)
    (root,) = named(collector.wait_for(new.trace_id, "request two-steps"), "request two-steps")
    (create,) = named(collector.of_trace(new.trace_id), "spincycle.v1.RequestManager/Create")
    assert (create.parent_id, root.parent_id) == ("", create.span_id)
    traceparents = installation.began("first")
    assert unsampled.traceparent in traceparents  # passed on as it came
    assert len(traceparents) == 3  # and one line is empty
    collector.status = 503
    away = [http.post("/api/v1/requests", json=body, headers=dict(TRACE.headers())).json() for _ in range(2)]
    for request in away:
        wait_state(http, request["id"], State.COMPLETE)
    for server in (installation.managers[1], installation.runner):
        assert server.terminate() == 0
        assert server.wait_for("spans dropped")["spans"] > 0
    known = {span.attributes.get("spincycle.request.id") for span in collector.spans}
    assert known - {None} == {by_caller["id"], new.id}


def test_without_the_extra_the_server_names_it(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['opentelemetry'] = None; sys.argv[0] = 'spincycle'; "
        "from spincycle_server.__main__ import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "job-runner", "--http", "127.0.0.1:0"],
        cwd=tmp_path,
        env={"SPINCYCLE_TELEMETRY_OTLP": "http://user:s3cret@127.0.0.1:4318", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=COMMAND,
        check=False,
    )
    assert done.returncode != 0
    assert "pip install 'spincycle-grpc[server,otel]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert "s3cret" not in done.stderr
