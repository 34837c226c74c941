"""A run without faults leaves no warning, no error and no traceback in the log of a server."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from spincycle_grpc import Client, State
from spincycle_grpc.errors import SpinCycleError
from tests.databases import DATABASES, SharedServers, migrate
from tests.e2e.processes import ServerProcess, running
from tests.e2e.waiting import eventually, wait_state
from tests.limits import ANSWER, REQUEST_END

SPECS = """
sequences:
  nap:
    request: true
    args:
      required: [{name: ms}]
      optional: [{name: channel, default: stable}]
    nodes:
      nap:
        category: job
        type: sleep
        args: [{expected: duration, given: ms}, {expected: channel, given: channel}]
  fails:
    request: true
    nodes:
      try:
        category: job
        type: shell-command
        args: [{expected: cmd, given: cmd}]
        retry: 1
    args:
      static: [{name: cmd, default: "false"}]
  speaks:
    request: true
    nodes:
      say:
        category: job
        type: shell-command
        args: [{expected: cmd, given: cmd}, {expected: args, given: args}]
    args:
      static: [{name: cmd, default: echo}, {name: args, default: hello}]
"""
QUIET = ("debug", "info")


def loud_lines(*servers: ServerProcess) -> list[object]:
    """Returns the lines that a run without faults does not have. Tracebacks are lines without a level."""
    return [event for server in servers for event in server.events if event["level"] not in QUIET]


@contextlib.contextmanager
def system(
    directory: Path, url: str, *, is_combined: bool, log: list[ServerProcess]
) -> Iterator[tuple[ServerProcess, ServerProcess]]:
    """Runs a Request Manager and a Job Runner, and ends them as an operator does.

    Args:
        directory: The working directory.
        url: The database.
        is_combined: Whether both are in one process.
        log: Gets all processes.
    """
    (directory / "specs").mkdir(exist_ok=True)
    (directory / "specs" / "specs.yaml").write_text(SPECS)
    environment = {
        "SPINCYCLE_SPECS_DIR": str(directory / "specs"),
        "SPINCYCLE_DATABASE_URL": url,
        "SPINCYCLE_JOBS": "",
        "SPINCYCLE_LOG_LEVEL": "debug",
    }
    command = "server" if is_combined else "request-manager"
    with contextlib.ExitStack() as stack:
        manager = stack.enter_context(
            running(command, "--http=127.0.0.1:0", directory=directory, environment=environment)
        )
        log.append(manager)
        runner = manager
        if not is_combined:
            rm = f"--rm={manager.address('request-manager', 'grpc')}"
            runner = stack.enter_context(
                running("job-runner", "--http=127.0.0.1:0", rm, directory=directory, environment=environment)
            )
            log.append(runner)
        manager.wait_for("runner reports")
        yield manager, runner
        for server in (runner, manager):
            assert server.terminate() == 0


def run_all_kinds(manager: ServerProcess, client: Client, http: httpx.Client) -> str:
    """Runs requests that end in each way, with callers who read, err and give up. Returns a long one's id."""
    nap = client.create("nap", {"ms": "50"})
    assert State(client.wait(nap.id, deadline=REQUEST_END).state) is State.COMPLETE
    large = client.create("nap", {"ms": "1", "note": "x" * 100_000})
    assert State(client.wait(large.id, deadline=REQUEST_END).state) is State.COMPLETE
    failing = client.create("fails")
    assert State(client.wait(failing.id, deadline=REQUEST_END).state) is State.FAIL
    speaking = client.create("speaks")
    job_id = next(iter(client.job_chain(speaking.id).jobs))
    assert list(client.watch(speaking.id, deadline=REQUEST_END))
    assert client.log(speaking.id)
    long = client.create("nap", {"ms": "600000"})
    stopped = client.create("nap", {"ms": "600000"})
    eventually(lambda: len(client.running().jobs) == 2)
    client.stop(stopped.id)
    assert State(client.wait(stopped.id, deadline=REQUEST_END).state) is State.STOPPED
    with http.stream("GET", f"/api/v1/requests/{long.id}/watch") as events:
        assert next(events.iter_lines())
    with http.stream("GET", f"/api/v1/requests/{speaking.id}/log/{job_id}/output") as events:
        assert events.status_code in (200, 404)
    for call in (
        lambda: client.create("nosuch"),
        lambda: client.create("nap", {}),
        lambda: client.create("nap", {"ms": "1", "chanel": "x"}, strict_args=True),
        lambda: client.get("00000000000000000000"),
        lambda: client.start(long.id),
        lambda: client.version(deadline=0.000_001),
    ):
        with contextlib.suppress(SpinCycleError):
            call()
    for method, path, body in (
        ("GET", "/api/v1/requests?limit=5", b""),
        ("GET", "/nosuch", b""),
        ("POST", "/api/v1/requests", b"{"),
        ("PUT", f"/api/v1/requests/{long.id}/start", b""),
        ("GET", "/openapi.json", b""),
    ):
        assert http.request(method, path, content=body, headers={"Content-Type": "application/json"})
    return long.id


@pytest.mark.parametrize("is_combined", [True, False], ids=["combined", "separate"])
@pytest.mark.parametrize("kind", DATABASES)
def test_a_run_without_faults_is_quiet(
    kind: str, is_combined: bool, database_servers: SharedServers, tmp_path: Path
) -> None:
    url = database_servers.url(kind, tmp_path)
    migrate(url)
    log: list[ServerProcess] = []
    for turn in ("first", "second"):
        with (
            system(tmp_path, url, is_combined=is_combined, log=log) as (manager, _),
            Client(manager.address("request-manager", "grpc"), deadline=ANSWER) as client,
            httpx.Client(
                base_url=f"http://{manager.address('request-manager', 'http')}", timeout=ANSWER
            ) as http,
        ):
            if turn == "first":
                # The server ends while this request runs, and while somebody watches it.
                long = run_all_kinds(manager, client, http)
                watch = client.watch(long)
                assert State(next(watch).requests[0].state) is State.RUNNING
                continue
            wait_state(http, long, State.RUNNING)  # It was suspended, and goes on.
            client.stop(long)
            wait_state(http, long, State.STOPPED)
    assert not loud_lines(*log)
