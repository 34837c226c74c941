"""Runners get only requests whose job types they know and whose labels they have. Other requests wait."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from spincycle_grpc import Client
from spincycle_grpc.state import State
from tests.databases import SharedServers, migrate
from tests.e2e import installations
from tests.e2e.installations import QUICK
from tests.e2e.processes import ServerProcess, running
from tests.e2e.waiting import eventually, wait_state
from tests.limits import REQUEST_END
from tests.versioned_jobs import GATE, TYPES

OLD, NEW = "quick,gate", "quick,gate,drain"
OLD_SPECS = """
sequences:
  quick:
    request: true
    nodes:
      one: {category: job, type: quick}
      two: {category: job, type: quick, deps: [one]}
  gated:
    request: true
    nodes:
      gate: {category: job, type: gate}
      quick: {category: job, type: quick, deps: [gate]}
  in-zone-a:
    request: true
    runner: {zone: a}
    nodes:
      one: {category: job, type: quick}
"""
NEW_SPECS = f"""{OLD_SPECS}
  drain:
    request: true
    nodes:
      gate: {{category: job, type: gate}}
      drain: {{category: job, type: drain, deps: [gate]}}
"""
NO_DRAIN = "no job runner knows the job type drain"


class Installation(installations.Installation):
    """Servers of several versions, which share a database and a gate."""

    def __init__(self, directory: Path, stack: contextlib.ExitStack, **options: Any) -> None:
        jobs = {GATE: str(directory / "gate"), "SPINCYCLE_JOBS": "tests.versioned_jobs:factory"}
        super().__init__(directory, stack, OLD_SPECS, environment=QUICK | jobs, **options)

    def start_manager_of(
        self, types: str = NEW, *, number: int = 0, **variables: str
    ) -> tuple[ServerProcess, httpx.Client]:
        """Starts a Request Manager with the specs of a version. Returns it with a client."""
        specs = self.directory / types.replace(",", "-")
        specs.mkdir(exist_ok=True)
        (specs / "specs.yaml").write_text(NEW_SPECS if "drain" in types else OLD_SPECS)
        variables = {TYPES: types, "SPINCYCLE_SPECS_DIR": str(specs), **variables}
        return self.start_manager(number, environment=variables), self.http(number)

    def start_runner_of(self, types: str, **variables: str) -> ServerProcess:
        """Starts a Job Runner of a version, which reports to the first Request Manager."""
        return self.start_runner(managers=1, environment={TYPES: types, **variables})

    def open_gate(self) -> None:
        """Lets all jobs of the type `gate` end."""
        self.open("gate")


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    with contextlib.ExitStack() as stack:
        yield Installation(tmp_path, stack)


def create(http: httpx.Client, request_type: str) -> dict[str, Any]:
    created = http.post("/api/v1/requests", json={"type": request_type})
    assert created.status_code == 201, created.text
    answer: dict[str, Any] = created.json()
    return answer


def get(http: httpx.Client, request_id: str) -> dict[str, Any]:
    answer: dict[str, Any] = http.get(f"/api/v1/requests/{request_id}").json()
    return answer


def test_requests_wait_until_a_runner_knows_their_types_and_start_oldest_first(
    installation: Installation,
) -> None:
    installation.open_gate()
    _, http = installation.start_manager_of()
    installation.start_runner_of(OLD)
    waiting = [create(http, "drain") for _ in range(3)]
    assert {(one["state"], one["waiting"]) for one in waiting} == {(State.PENDING, NO_DRAIN)}
    wait_state(http, create(http, "quick")["id"], State.COMPLETE)
    for one in waiting:
        assert (get(http, one["id"])["state"], get(http, one["id"])["waiting"]) == (State.PENDING, NO_DRAIN)
    found = http.get("/api/v1/requests", params={"state": "PENDING"}).json()
    assert [one["waiting"] for one in found] == [NO_DRAIN] * 3
    refused = http.put(f"/api/v1/requests/{waiting[0]['id']}/start")
    assert NO_DRAIN in refused.text
    assert not refused.is_success
    installation.start_runner_of(NEW)
    ended = [wait_state(http, one["id"], State.COMPLETE, State.FAIL) for one in waiting]
    assert [one["state"] for one in ended] == [State.COMPLETE] * 3
    assert not any("waiting" in one for one in ended)
    started = [datetime.fromisoformat(one["startedAt"]) for one in ended]
    assert started == sorted(started)


def test_a_watch_shows_why_a_request_waits_until_it_runs(installation: Installation) -> None:
    installation.open_gate()
    _, http = installation.start_manager_of()
    installation.start_runner_of(OLD)
    request_id = create(http, "drain")["id"]
    with Client(installation.grpc()) as client:
        watch = client.watch(request_id, deadline=REQUEST_END)
        states = [(int(one.state), one.waiting) for one in next(watch).requests]
        assert states == [(State.PENDING.value, NO_DRAIN)]
        installation.start_runner_of(NEW)
        states = [(int(one.state), one.waiting) for message in watch for one in message.requests]
    assert states[-1] == (State.COMPLETE.value, "")
    assert {waiting for _, waiting in states} == {""}


def test_requests_that_cannot_run_delay_no_others_and_have_their_own_limit(
    installation: Installation,
) -> None:
    installation.open_gate()
    server, http = installation.start_manager_of(SPINCYCLE_SERVER_MAX_BLOCKED="250")
    installation.start_runner_of(OLD)
    waiting = []
    # The server counts at intervals. A request that is stored meanwhile may count twice, or not at all.
    while (refused := http.post("/api/v1/requests", json={"type": "drain"})).status_code == 201:
        waiting.append(refused.json()["id"])
    assert len(waiting) >= 249
    assert refused.status_code == 429
    assert NO_DRAIN in refused.text
    for _ in range(5):
        wait_state(http, create(http, "quick")["id"], State.COMPLETE)
    assert server.terminate() == 0
    _, http = installation.start_manager_of()
    quick = [create(http, "quick")["id"] for _ in range(20)]
    for request_id in quick:
        wait_state(http, request_id, State.COMPLETE)
    assert get(http, waiting[-1])["state"] == State.PENDING
    installation.start_runner_of(NEW)
    for request_id in waiting:
        wait_state(http, request_id, State.COMPLETE)


def test_labels_select_the_runner(installation: Installation) -> None:
    _, http = installation.start_manager_of()
    installation.start_runner_of(OLD, SPINCYCLE_JOB_RUNNER_LABELS="zone=b, disk=ssd")
    request_id = create(http, "in-zone-a")["id"]
    wait_state(http, create(http, "quick")["id"], State.COMPLETE)
    assert get(http, request_id)["waiting"] == "no job runner has the label zone=a"
    installation.start_runner_of(OLD, SPINCYCLE_JOB_RUNNER_LABELS="disk=hdd,zone=a")
    wait_state(http, request_id, State.COMPLETE)


def test_a_suspended_request_waits_for_a_runner_that_knows_its_types(installation: Installation) -> None:
    _, http = installation.start_manager_of()
    knows = installation.start_runner_of(NEW)
    request_id = create(http, "drain")["id"]
    wait_state(http, request_id, State.RUNNING)
    eventually(lambda: http.get("/api/v1/status/running").json()["jobs"])
    installation.start_runner_of(OLD)
    assert knows.terminate() == 0
    wait_state(http, request_id, State.SUSPENDED)
    installation.open_gate()
    for _ in range(3):
        wait_state(http, create(http, "gated")["id"], State.COMPLETE)
    suspended = get(http, request_id)
    assert (suspended["state"], suspended["waiting"]) == (State.SUSPENDED, NO_DRAIN)
    installation.start_runner_of(NEW)
    assert wait_state(http, request_id, State.COMPLETE, State.FAIL)["state"] == State.COMPLETE


def test_a_request_of_a_killed_runner_waits_for_one_that_knows_its_types(installation: Installation) -> None:
    _, http = installation.start_manager_of()
    knows = installation.start_runner_of(NEW)
    request_id = create(http, "drain")["id"]
    eventually(lambda: http.get("/api/v1/status/running").json()["jobs"])
    installation.start_runner_of(OLD)
    knows.kill()
    eventually(lambda: get(http, request_id).get("waiting") == NO_DRAIN)
    assert get(http, request_id)["state"] == State.RUNNING
    installation.open_gate()
    wait_state(http, create(http, "gated")["id"], State.COMPLETE)
    assert get(http, request_id)["waiting"] == NO_DRAIN
    installation.start_runner_of(NEW)
    assert wait_state(http, request_id, State.COMPLETE, State.FAIL)["state"] == State.COMPLETE


def test_a_rolling_deployment_fails_no_accepted_request(installation: Installation) -> None:
    manager, http = installation.start_manager_of(OLD)
    old = [installation.start_runner_of(OLD) for _ in range(2)]
    accepted = [create(http, one)["id"] for one in ("gated", "quick") * 5]
    new = []
    for runner in old:
        new.append(installation.start_runner_of(NEW))
        assert runner.terminate() == 0
        accepted += [create(http, one)["id"] for one in ("gated", "quick") * 5]
    assert manager.terminate() == 0
    _, http = installation.start_manager_of(NEW)
    accepted += [create(http, one)["id"] for one in ("drain", "quick") * 5]
    installation.open_gate()
    ended = [wait_state(http, one, State.COMPLETE, State.FAIL, State.STOPPED) for one in accepted]
    assert [one["state"] for one in ended] == [State.COMPLETE] * len(accepted)


def test_a_request_manager_with_older_specs_asks_its_runner_about_the_types_of_others(
    tmp_path: Path, database_servers: SharedServers
) -> None:
    url = database_servers.url("postgresql", tmp_path)
    migrate(url)
    with contextlib.ExitStack() as stack:
        installation = Installation(tmp_path, stack, database=url, managers=2)
        installation.environment["SPINCYCLE_CLUSTER_OPEN"] = "true"
        installation.open_gate()
        _, old = installation.start_manager_of(OLD)
        installation.start_runner_of(OLD)
        installation.start_runner_of(NEW)
        _, new = installation.start_manager_of(NEW, number=1)
        request_id = create(new, "drain")["id"]
        assert wait_state(new, request_id, State.COMPLETE, State.FAIL)["state"] == State.COMPLETE
        assert get(old, request_id)["state"] == State.COMPLETE


def test_a_factory_that_hangs_for_one_type_stops_neither_the_server_nor_other_requests(
    tmp_path: Path,
) -> None:
    (tmp_path / "specs").mkdir()
    hanging = "\n  hangs:\n    request: true\n    nodes:\n      one: {category: job, type: hang}\n"
    (tmp_path / "specs" / "specs.yaml").write_text(OLD_SPECS + hanging)
    environment = {TYPES: OLD, GATE: str(tmp_path / "gate"), "SPINCYCLE_JOBS": "tests.versioned_jobs:factory"}
    with (
        running(
            "server", "--http=127.0.0.1:0", "--specs=specs", "--db=sqlite:///x.db",
            directory=tmp_path, environment=environment,
        ) as server,
        Client(server.address("request-manager", "grpc")) as client,
    ):  # fmt: skip
        assert State(client.wait(client.create("quick").id, REQUEST_END).state) is State.COMPLETE
        assert server.terminate() == 0
