"""A full runner offers its places to the Request Managers that do not get its reports."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from spincycle_grpc.state import FINAL_STATES, State
from spincycle_grpc.v1 import request_manager_pb2 as messages
from spincycle_grpc.v1.request_manager_pb2_grpc import RequestManagerStub
from tests.databases import SharedServers
from tests.e2e.installations import JournalInstallation
from tests.e2e.waiting import eventually
from tests.e2e.worker_servers import WORKERS, each_worker, job_runner, worker_server
from tests.limits import ANSWER, LOG_LINE
from tests.ports import free_port

PLACES = 2
WAITING = 12
REFUSED = "runner did not take the chain"

SPECS = """
sequences:
  held:
    request: true
    args: {required: [{name: gate, desc: a file}]}
    nodes:
      only: {category: job, type: held, args: [{expected: gate}]}
"""

SMALL = {"SPINCYCLE_JOB_RUNNER_MAX_CHAINS": str(PLACES), "SPINCYCLE_LOG_LEVEL": "debug"}
SELDOM = {"SPINCYCLE_RESUME_INTERVAL": "1h", "SPINCYCLE_JOB_RUNNER_LEASE": "2h"}
"""A Request Manager finds nothing by looking from time to time."""

UNPROBED = ("tests.e2e.patched_server", "no-probes")
STEADY = ("tests.e2e.patched_server", "no-probes,endless-promises")


@pytest.fixture(params=["mariadb", "postgresql"])
def url(request: pytest.FixtureRequest, database_servers: SharedServers, tmp_path: Path) -> Iterator[str]:
    with database_servers.migrated(request.param, tmp_path) as found:
        yield found


@pytest.fixture
def postgresql(database_servers: SharedServers, tmp_path: Path) -> Iterator[str]:
    with database_servers.migrated("postgresql", tmp_path) as found:
        yield found


class Installation(JournalInstallation):
    """Two Request Managers, and a small runner that reports to the first one. All have the servers' key."""

    def __init__(
        self,
        directory: Path,
        stack: contextlib.ExitStack,
        database: str,
        *,
        program: tuple[str, ...] = UNPROBED,
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        environment = SMALL | dict(variables)
        super().__init__(directory, stack, SPECS, database=database, managers=2, environment=environment)
        self.use_cluster_key()
        self.program = program
        self.runner_port = free_port()
        self.start_manager(0)
        self.runner = self.start_runner(port=self.runner_port)
        self.start_manager(1)  # It finds the runner when it starts.
        self.made: list[str] = []

    def create(self, number: int) -> str:
        """Creates a request at a Request Manager. It runs until the gate `go` is open."""
        self.made.append(self.client_of(number).create("held", {"gate": self.path("go")}).id)
        return self.made[-1]

    def fill(self, number: int) -> None:
        """Creates requests at a Request Manager until the runner has refused one."""
        while not self.refused(number):
            self.create(number)
        self.managers[number].wait_for(REFUSED, LOG_LINE)

    def refused(self, number: int) -> int:
        """Returns how many chains of a Request Manager the runner has refused."""
        return sum(event["message"] == REFUSED for event in self.managers[number].events)

    def streams(self) -> float:
        """Returns how many streams of places the runner has."""
        answer = httpx.get(f"http://127.0.0.1:{self.runner_port}/metrics", timeout=ANSWER)
        return sum(
            sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
            if sample.name == "spincycle_limit_used" and sample.labels["limit"] == "capacity_streams"
        )

    def wait_complete(self, number: int) -> None:
        """Waits until all requests are COMPLETE."""
        for request_id in self.made:
            eventually(partial(self._is_complete, number, request_id))

    def _is_complete(self, number: int, request_id: str) -> bool:
        state = State(self.client_of(number).get(request_id).state)
        assert state not in FINAL_STATES or state is State.COMPLETE
        return state is State.COMPLETE


def test_requests_at_the_manager_without_the_runners_stream_start_without_probes(
    url: str, tmp_path: Path
) -> None:
    with contextlib.ExitStack() as stack:
        servers = Installation(tmp_path, stack, url, program=STEADY, variables=SELDOM)
        servers.fill(1)
        eventually(lambda: servers.streams() == 1)
        refused = servers.refused(1)
        for _ in range(WAITING):
            servers.create(1)
        servers.open("go")
        servers.wait_complete(1)
        eventually(lambda: servers.streams() == 0)
        assert servers.refused(1) == refused, "each place was offered once"
        assert servers.refused(0) == 0
        # Nothing waits any longer, so places are not offered: the runner's reports tell the other one.
        servers.fill(0)
        assert servers.streams() == 0


def test_both_managers_start_requests_of_a_full_runner(url: str, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        servers = Installation(tmp_path, stack, url, variables=SELDOM)
        servers.fill(0)
        servers.fill(1)
        for number in range(WAITING):
            servers.create(number % 2)
        servers.open("go")
        servers.wait_complete(0)


@pytest.mark.parametrize("what", ["manager", "runner killed", "runner stopped", "watching manager"])
def test_requests_that_wait_for_places_outlast_deaths(what: str, postgresql: str, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        servers = Installation(tmp_path, stack, postgresql)
        servers.fill(1)
        for _ in range(WAITING):
            servers.create(1)
        eventually(lambda: servers.streams() == 1)
        if what == "watching manager":
            servers.managers[1].kill()
            eventually(lambda: servers.streams() == 0)
        elif what == "manager":
            servers.managers[0].kill()
        elif what == "runner killed":
            servers.runner.kill()
        else:
            assert servers.runner.terminate() == 0
        servers.open("go")
        if what.startswith("runner"):
            servers.runner = servers.start_runner(port=servers.runner_port)
        servers.wait_complete(0 if what == "watching manager" else 1)


def test_a_runner_of_an_earlier_version_is_probed_and_asked_once(postgresql: str, tmp_path: Path) -> None:
    program = ("tests.e2e.patched_server", "no-streams")
    with contextlib.ExitStack() as stack:
        servers = Installation(tmp_path, stack, postgresql, program=program)
        servers.fill(1)
        for _ in range(WAITING):
            servers.create(1)
        servers.open("go")
        servers.wait_complete(1)
        asked = [one for one in servers.managers[1].events if one["message"] == "runner offers no places"]
        assert len(asked) == 1


def test_workers_without_the_runners_stream_start_requests_without_probes(url: str, tmp_path: Path) -> None:
    with (
        worker_server(tmp_path, url, environment=SMALL | SELDOM, program=STEADY) as server,
        each_worker(server) as stubs,
    ):
        before = server.connections(server.grpc)
        with job_runner(tmp_path, server, environment=SMALL, program=STEADY):
            after = server.connections(server.grpc)
            [holder] = [number for number in after if after[number] > before[number]]
            others = [stub for number, stub in enumerate(stubs, 1) if number != holder]
            request = messages.CreateRequest(type="held")
            request.args.update({"gate": str(tmp_path / "go")})
            made = [
                others[number % len(others)].Create(request, timeout=ANSWER).request.id
                for number in range(WORKERS * WAITING)
            ]
            (tmp_path / "go").touch()
            for request_id in made:
                eventually(partial(_is_complete, stubs[0], request_id))
        refused = sum(event["message"] == REFUSED for event in server.process.events)
        assert refused < len(made)


def _is_complete(stub: RequestManagerStub, request_id: str) -> bool:
    request = messages.GetRequest(request_id=request_id)
    return State(stub.Get(request, timeout=ANSWER).request.state) is State.COMPLETE
