"""A job that ends its runner's process, however it does: its request fails, and all others complete."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from spincycle_grpc import Client
from spincycle_grpc.state import FINAL_STATES, State
from tests.e2e.processes import ServerProcess, running
from tests.limits import REQUEST_END
from tests.poison_jobs import RUNS, runs_of
from tests.ports import free_port

SPECS = """
sequences:
  poison:
    request: true
    args: {required: [{name: how, desc: in which way}]}
    nodes:
      before: {category: job, type: innocent}
      poison: {category: job, type: poison, args: [{expected: how}], deps: [before]}
      beside: {category: job, type: innocent, deps: [before]}
  innocent:
    request: true
    args: {optional: [{name: ms, desc: milliseconds, default: "0"}]}
    nodes:
      one: {category: job, type: innocent, args: [{expected: ms}]}
      two: {category: job, type: innocent, args: [{expected: ms}], deps: [one]}
"""

LEASE = "10s"


@contextlib.contextmanager
def server_in(directory: Path, *, turn: str = "5s") -> Iterator[ServerProcess]:
    environment = {
        RUNS: str(directory / "runs"),
        "SPINCYCLE_JOBS": "tests.poison_jobs:factory",
        "SPINCYCLE_JOB_RUNNER_LEASE": LEASE,
        "SPINCYCLE_JOB_RUNNER_SUSPECT_TURN": turn,
    }
    # A runner at the address of a dead one takes over its requests at once, however long its lease is.
    runner = f"--runner-http={(directory / 'runner').read_text()}"
    with running(
        "server", "--http=127.0.0.1:0", runner, "--specs=specs", "--db=sqlite:///x.db",
        directory=directory, environment=environment,
    ) as server:  # fmt: skip
        server.wait_for("runner reports")
        yield server


def states_at_the_end(directory: Path, request_ids: list[str], **options: str) -> list[State]:
    """Starts a server again and again until the requests have ended on one that lives."""
    deadline = time.monotonic() + REQUEST_END
    while time.monotonic() < deadline:
        with server_in(directory, **options) as server:
            states = states_while_it_lives(server, request_ids)
            if states is not None:
                assert server.terminate() == 0
                return states
    raise AssertionError("the requests have not ended")


def states_while_it_lives(server: ServerProcess, request_ids: list[str]) -> list[State] | None:
    """Returns the final states of the requests; None if the server dies before they have ended."""
    with httpx.Client(base_url=f"http://{server.address('request-manager', 'http')}") as http:
        while server.process.poll() is None:
            with contextlib.suppress(httpx.HTTPError):
                found = [http.get(f"/api/v1/requests/{one}").json()["state"] for one in request_ids]
                if all(State(state) in FINAL_STATES for state in found):
                    return [State(state) for state in found]
            time.sleep(0.05)
    return None


def create(directory: Path, *requests: tuple[str, dict[str, str]]) -> list[str]:
    """Creates requests while no runner is there."""
    with running(
        "request-manager", "--http=127.0.0.1:0", "--specs=specs", "--db=sqlite:///x.db",
        directory=directory, environment={"SPINCYCLE_JOBS": "tests.poison_jobs:factory"},
    ) as manager, Client(manager.address("request-manager", "grpc")) as client:  # fmt: skip
        ids = [client.create(kind, args).id for kind, args in requests]
        assert manager.terminate() == 0
    return ids


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs" / "specs.yaml").write_text(SPECS)
    (tmp_path / "runner").write_text(f"127.0.0.1:{free_port()}")
    return tmp_path


@pytest.mark.parametrize("how", ["exit", "segfault", "kill", "later", "deserialize"])
def test_a_request_whose_job_ends_the_process_fails_and_others_complete(how: str, directory: Path) -> None:
    ids = create(
        directory, ("innocent", {"ms": "300"}), ("poison", {"how": how}), ("innocent", {"ms": "300"})
    )
    states = states_at_the_end(directory, ids)
    assert states == [State.COMPLETE, State.FAIL, State.COMPLETE]
    # Once with the others, then three times as a suspect.
    assert runs_of(directory / "runs", how) == 4
    with server_in(directory) as server, Client(server.address("request-manager", "grpc")) as client:
        [entry] = [entry for entry in client.log(ids[1]) if entry.name == "poison"]
    assert State(entry.state) is State.FAIL
    assert "died 3 times in a row while this job ran" in entry.error


def test_jobs_that_outlast_their_turns_are_found_alone(directory: Path) -> None:
    ids = create(
        directory, ("innocent", {"ms": "2000"}), ("poison", {"how": "later"}), ("innocent", {"ms": "2000"})
    )
    assert states_at_the_end(directory, ids, turn="10ms") == [State.COMPLETE, State.FAIL, State.COMPLETE]
