"""Leases: lost runners, runners that cannot reach a Request Manager, and machines with different clocks."""

from __future__ import annotations

import contextlib
import signal
from collections import defaultdict
from pathlib import Path
from typing import Any

import httpx
import pytest

from spincycle_grpc.state import State
from tests.databases import SharedServers, migrate
from tests.e2e.chaos_checks import Troubles, assert_done_once
from tests.e2e.kinds import KINDS, SPECS, assert_ended_right
from tests.e2e.processes import ANEW, ServerProcess, running
from tests.e2e.waiting import eventually, wait_state
from tests.journal_jobs import JOURNAL, read_journal
from tests.limits import ANSWER, PROCESS_END
from tests.ports import free_port

ENDED = (State.COMPLETE, State.FAIL, State.STOPPED)


class Machines:
    """Servers that each have their own clock, as if they ran on different machines."""

    def __init__(self, directory: Path, stack: contextlib.ExitStack, **environment: str) -> None:
        self._directory = directory
        self._stack = stack
        self.journal = directory / "journal"
        self._environment = {
            JOURNAL: str(self.journal),
            "SPINCYCLE_JOBS": "tests.journal_jobs:factory",
            "SPINCYCLE_SPECS_DIR": str(SPECS),
            "SPINCYCLE_RESUME_INTERVAL": "100ms",
            "SPINCYCLE_JOB_RUNNER_LEASE": "4s",
            **environment,
        }
        self.ports: list[int] = []

    def _run(self, *arguments: str, seconds: int) -> ServerProcess:
        program = ("tests.e2e.skewed_server", f"{seconds}") if seconds else ("spincycle_server",)
        server = running(
            *arguments,
            directory=self._directory,
            environment=self._environment,
            program=program,
            anew=ANEW or seconds != 0,  # The clock must be wrong before modules are loaded.
        )
        return self._stack.enter_context(server)

    def start_manager(self, *, port: int = 0, seconds: int = 0) -> ServerProcess:
        """Starts a Request Manager whose clock is `seconds` ahead."""
        port = port or free_port()
        if port not in self.ports:
            self.ports.append(port)
        return self._run("request-manager", f"--http=127.0.0.1:{port}", seconds=seconds)

    def start_runner(self, *, seconds: int = 0) -> ServerProcess:
        """Starts a Job Runner for all Request Managers. Its clock is `seconds` ahead."""
        addresses = ",".join(f"127.0.0.1:{port + 10}" for port in self.ports)
        return self._run("job-runner", "--http=127.0.0.1:0", f"--rm={addresses}", seconds=seconds)

    def http(self, number: int = 0) -> httpx.Client:
        """Returns an HTTP client of one Request Manager."""
        url = f"http://127.0.0.1:{self.ports[number]}"
        return self._stack.enter_context(httpx.Client(base_url=url, timeout=ANSWER))

    def events(self) -> list[tuple[str, str]]:
        """Returns the name and the event of each line of the journal, in order."""
        return [(line["name"], line["event"]) for line in read_journal(self.journal)]


@pytest.fixture
def stack() -> Any:
    with contextlib.ExitStack() as opened:
        yield opened


def create(http: httpx.Client, request_type: str, **args: Any) -> str:
    answer = http.post("/api/v1/requests", json={"type": request_type, "args": args})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def test_a_lost_request_is_taken_over_without_waiting_for_the_resume_interval(
    tmp_path: Path, stack: contextlib.ExitStack
) -> None:
    machines = Machines(tmp_path, stack, SPINCYCLE_RESUME_INTERVAL="1h")
    machines.start_manager().wait_for("listening")
    lost = machines.start_runner()
    lost.wait_for("reporting")
    http = machines.http()
    request_id = create(http, "row", ms="300")
    eventually(machines.events)
    other = machines.start_runner()
    other.wait_for("reporting")
    lost.kill()
    assert wait_state(http, request_id, *ENDED)["state"] == State.COMPLETE
    names = [name for name, event in machines.events() if event == "COMPLETE"]
    assert names == ["first", "second", "third"]


def test_a_runner_without_a_request_manager_stops_its_jobs_when_its_lease_expires(
    tmp_path: Path, stack: contextlib.ExitStack
) -> None:
    machines = Machines(tmp_path, stack)
    manager = machines.start_manager()
    manager.wait_for("listening")
    runner = machines.start_runner()
    runner.wait_for("reporting")
    request_id = create(machines.http(), "row", ms="3600000")
    eventually(machines.events)
    manager.kill()
    runner.wait_for("lease expired: no Request Manager was reachable, job chains are suspended")
    eventually(lambda: machines.events() == [("first", "start"), ("first", "STOPPED")])
    again = machines.start_manager(port=machines.ports[0])
    again.wait_for("listening")
    # Nobody took the request over, so the report of the stopped try counts, and the request continues.
    eventually(lambda: machines.events()[2:] == [("first", "start")])
    http = machines.http()
    stopped = http.put(f"/api/v1/requests/{request_id}/stop")
    assert stopped.status_code == 200, stopped.text
    assert wait_state(http, request_id, *ENDED)["state"] == State.STOPPED
    log = http.get(f"/api/v1/requests/{request_id}/log").json()
    tries = [(entry["name"], entry["try"], entry["state"]) for entry in log if entry["type"] == "journal"]
    assert tries == [("first", 1, State.STOPPED), ("first", 2, State.STOPPED)]


def test_a_stop_reaches_a_runner_that_reports_to_another_request_manager(
    database_servers: SharedServers, tmp_path: Path, stack: contextlib.ExitStack
) -> None:
    url = database_servers.url("mariadb", tmp_path)
    migrate(url)
    machines = Machines(tmp_path, stack, SPINCYCLE_DATABASE_URL=url, SPINCYCLE_JOB_RUNNER_LEASE="1h")
    machines.start_manager().wait_for("listening")
    machines.start_runner().wait_for("reporting")
    http = machines.http()
    request_id = create(http, "row", ms="3600000")
    eventually(machines.events)
    machines.start_manager().wait_for("listening")
    answer = machines.http(1).put(f"/api/v1/requests/{request_id}/stop")
    assert answer.status_code == 200, answer.text
    assert wait_state(http, request_id, *ENDED)["state"] == State.STOPPED


@pytest.mark.parametrize("kind", ["mariadb", "postgresql"])
def test_machines_may_have_different_clocks(
    kind: str, database_servers: SharedServers, tmp_path: Path, stack: contextlib.ExitStack
) -> None:
    url = database_servers.url(kind, tmp_path)
    migrate(url)
    machines = Machines(tmp_path, stack, SPINCYCLE_DATABASE_URL=url, SPINCYCLE_RESUME_TIMEOUT="30m")
    for manager in [machines.start_manager(seconds=7200), machines.start_manager(seconds=-7200)]:
        manager.wait_for("listening")
    lost, ends, stays = (machines.start_runner(seconds=seconds) for seconds in (-3600, 3600, 0))
    for runner in (lost, ends, stays):
        runner.wait_for("reporting")
    users = [machines.http(0), machines.http(1)]
    requests = {
        create(users[number % 2], kind_of.type, **kind_of.args): kind_of
        for number, kind_of in enumerate(KINDS * 4)
    }
    lost.kill()
    ends.process.send_signal(signal.SIGTERM)
    assert ends.process.wait(PROCESS_END) == 0, ends.log()
    for request_id in requests:
        wait_state(users[0], request_id, *ENDED)
    journals: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in read_journal(machines.journal):
        journals[line["request"]].append(line)
    for request_id, kind_of in requests.items():
        request = users[1].get(f"/api/v1/requests/{request_id}").json()
        log = users[1].get(f"/api/v1/requests/{request_id}/log").json()
        assert_ended_right(kind_of, request, log)
        if not kind_of.sequence_retries:  # The clocks of two runners cannot order their failures.
            troubles = Troubles(kills={lost.process.pid: 0})
            assert_done_once(kind_of, request, log, journals[request_id], troubles)
