"""A request whose chain is longer than a packet of MariaDB runs, pauses and is taken over like any other."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from spincycle_grpc.state import State
from spincycle_server.database.urls import parse_url
from tests.databases import SharedServers, migrate
from tests.e2e.installations import JournalInstallation
from tests.e2e.waiting import eventually

HOSTS = 900
SPECS = """
sequences:
  fleet:
    request: true
    args: {required: [{name: hosts, desc: their names}, {name: gate, desc: a file}]}
    nodes:
      all: {category: sequence, type: one-host, each: ["hosts:host"]}
      held: {category: job, type: held, args: [{expected: gate, given: gate}], deps: [all]}
      after: {category: job, type: journal, deps: [held]}
  one-host:
    args: {required: [{name: host}]}
    nodes:
      first: {category: job, type: noop}
      second: {category: job, type: noop, deps: [first]}
"""


@pytest.fixture
def database(database_servers: SharedServers) -> Iterator[str]:
    """An empty database of a MariaDB that takes packets of up to 512 KiB. Yields its URL."""
    server = database_servers.get("mariadb")
    server.execute("SET GLOBAL max_allowed_packet = 524288")
    try:
        url = server.fresh_database()
        migrate(url)
        yield url
    finally:
        server.execute("SET GLOBAL max_allowed_packet = 67108864")


def test_a_chain_that_no_packet_can_hold_runs_pauses_and_is_taken_over(tmp_path: Path, database: str) -> None:
    with contextlib.ExitStack() as stack:
        there = JournalInstallation(
            tmp_path, stack, SPECS, database=database, environment={"SPINCYCLE_JOB_RUNNER_LEASE": "3s"}
        )
        there.start_manager()
        runner = there.start_runner()
        client = there.client
        hosts = [f"host-{number:05}" for number in range(HOSTS)]
        request_id = client.create("fleet", {"hosts": hosts, "gate": there.path("gate")}).id
        eventually(lambda: there.events(request_id)["held"] == 1)
        client.pause(request_id, now=True)
        there.wait_state(request_id, State.SUSPENDED)
        assert stored_sizes(database) == (0, 0)
        client.resume(request_id)
        eventually(lambda: there.events(request_id)["held"] == 2)
        runner.kill()
        there.start_runner()
        eventually(lambda: there.events(request_id)["held"] == 3)
        there.open("gate")
        request = there.wait_state(request_id, State.COMPLETE)
        assert request.finished_jobs == request.total_jobs > 4 * HOSTS
        complete = [line["name"] for line in there.journal(request_id) if line["event"] == "COMPLETE"]
        assert complete == ["held", "after"]
        assert len(client.job_chain(request_id).jobs) == request.total_jobs


def stored_sizes(database: str) -> tuple[int, int]:
    """Returns the bytes of the only chain in the archive, and of its suspended form."""
    engine = create_engine(parse_url(database))
    with engine.connect() as connection:
        archived = connection.scalar(text("SELECT LENGTH(job_chain) FROM request_archives"))
        suspended = connection.scalar(text("SELECT LENGTH(suspended_job_chain) FROM suspended_job_chains"))
    engine.dispose()
    return archived, suspended
