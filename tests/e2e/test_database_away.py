"""A database that dies, hangs, or is full: calls fail, health reports it, and work resumes afterwards."""

from __future__ import annotations

import contextlib
import resource
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from spincycle_grpc.state import State
from spincycle_grpc.structs import to_struct
from spincycle_grpc.v1 import request_manager_pb2 as messages
from spincycle_grpc.v1.request_manager_pb2_grpc import RequestManagerStub
from spincycle_server.maintenance.migrating import upgrade_database
from spincycle_server.store import DatabaseOptions
from tests.databases import SERVERS, DatabaseServer, database_server
from tests.e2e.processes import ServerProcess, running
from tests.e2e.waiting import eventually, wait_state
from tests.limits import ANSWER

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICES = ("", "spincycle.v1.RequestManager", "spincycle.v1.RunnerReports")


@pytest.fixture(params=SERVERS)
def database(request: pytest.FixtureRequest) -> Iterator[DatabaseServer]:
    with database_server(request.param) as server:
        yield server


def http_of(server: ServerProcess) -> httpx.Client:
    return httpx.Client(base_url=f"http://{server.address('request-manager', 'http')}", timeout=ANSWER)


def health_of(channel: grpc.Channel) -> set[int]:
    """Returns all health states that a server reports, for itself and for its services."""
    stub = health_pb2_grpc.HealthStub(channel)
    answers = [
        stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=ANSWER)  # type: ignore[attr-defined]
        for name in SERVICES
    ]
    return {answer.status for answer in answers}


def test_a_server_refuses_calls_while_its_database_is_dead_and_then_resumes(
    database: DatabaseServer, tmp_path: Path
) -> None:
    url = database.fresh_database()
    upgrade_database(url, DatabaseOptions())
    arguments = ("server", "--http=127.0.0.1:0", f"--db={url}")
    environment = {"SPINCYCLE_DATABASE_TIMEOUT": "3s"}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(running(*arguments, directory=tmp_path, environment=environment))
        server.wait_for("runner reports")
        http = stack.enter_context(http_of(server))
        address = server.address("request-manager", "grpc")
        channel = stack.enter_context(grpc.insecure_channel(address))
        stub = RequestManagerStub(channel)
        assert health_of(channel) == {SERVING}
        assert http.get("/readyz").status_code == 200
        slow = http.post("/api/v1/requests", json={"type": "nap", "args": {"ms": "1000"}}).json()["id"]
        database.kill()
        eventually(lambda: health_of(channel) == {NOT_SERVING})
        server.wait_for("database unavailable: not serving")
        unready = http.get("/readyz")
        assert (unready.status_code, unready.json()["message"]) == (503, "the database does not answer")
        assert http.get("/healthz").status_code == 200
        for _ in range(3):
            refused = http.post("/api/v1/requests", json={"type": "nap", "args": {"ms": "1"}})
            assert (refused.status_code, refused.json()["requestId"]) == (503, "")
            assert refused.json()["message"].startswith("the database cannot be used now")
            assert http.get(f"/api/v1/requests/{slow}").status_code == 503
            with pytest.raises(grpc.RpcError) as raised:
                stub.Create(messages.CreateRequest(type="nap", args=to_struct({"ms": "1"})), timeout=ANSWER)
            assert raised.value.code() == grpc.StatusCode.UNAVAILABLE
        database.start()
        eventually(lambda: health_of(channel) == {SERVING})
        assert http.get("/readyz").status_code == 200
        server.wait_for("database available again: serving")
        # Refused creates left no trace, the running request ends, and new requests run.
        assert [one["id"] for one in http.get("/api/v1/requests").json()] == [slow]
        wait_state(http, slow, State.COMPLETE)
        fresh = http.post("/api/v1/requests", json={"type": "nap", "args": {"ms": "1"}})
        assert fresh.status_code == 201
        wait_state(http, fresh.json()["id"], State.COMPLETE)
        assert server.terminate() == 0, server.log()


def test_a_server_refuses_calls_while_its_database_hangs(database: DatabaseServer, tmp_path: Path) -> None:
    url = database.fresh_database()
    upgrade_database(url, DatabaseOptions())
    environment = {"SPINCYCLE_DATABASE_TIMEOUT": "3s"}
    arguments = ("request-manager", "--http=127.0.0.1:0", f"--db={url}")
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(running(*arguments, directory=tmp_path, environment=environment))
        http = stack.enter_context(http_of(server))
        channel = stack.enter_context(grpc.insecure_channel(server.address("request-manager", "grpc")))
        assert health_of(channel) == {SERVING}
        database.signal(signal.SIGSTOP)
        try:
            eventually(lambda: health_of(channel) == {NOT_SERVING})
            assert http.get("/api/v1/requests").status_code == 503, server.log()
        finally:
            database.signal(signal.SIGCONT)
        eventually(lambda: health_of(channel) == {SERVING})
        assert http.get("/api/v1/requests").json() == []
        assert server.terminate() == 0, server.log()


def test_a_server_refuses_writes_while_the_disk_is_full(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(running("server", "--http=127.0.0.1:0", directory=tmp_path))
        server.wait_for("runner reports")
        http = stack.enter_context(http_of(server))
        first = http.post("/api/v1/requests", json={"type": "nap", "args": {"ms": "1"}}).json()["id"]
        wait_state(http, first, State.COMPLETE)
        # None of the server's files can grow, as on a full disk.
        _, most = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        for _ in range(3):
            refused = http.post("/api/v1/requests", json={"type": "nap", "args": {"ms": "1"}})
            assert refused.status_code == 503, refused.text
            assert "the server's log says why" in refused.json()["message"]
        assert [one["id"] for one in http.get("/api/v1/requests").json()] == [first]
        assert http.get(f"/api/v1/requests/{first}").json()["state"] == State.COMPLETE
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, most))
        fresh = eventually(lambda: _created(http))
        wait_state(http, fresh, State.COMPLETE)
        assert len(http.get("/api/v1/requests").json()) == 2
        assert server.terminate() == 0, server.log()


def _created(http: httpx.Client) -> str | None:
    created = http.post("/api/v1/requests", json={"type": "nap", "args": {"ms": "1"}})
    return str(created.json()["id"]) if created.status_code == 201 else None


def test_an_open_connection_to_a_database_that_hangs_does_not_keep_a_read_waiting(
    database: DatabaseServer, tmp_path: Path
) -> None:
    """All connections are open when it hangs, so no limit of a new connection ends the reads."""
    url = database.fresh_database()
    upgrade_database(url, DatabaseOptions())
    environment = {"SPINCYCLE_DATABASE_TIMEOUT": "2s"}
    arguments = ("request-manager", "--http=127.0.0.1:0", f"--db={url}")
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(running(*arguments, directory=tmp_path, environment=environment))
        http = stack.enter_context(http_of(server))
        threads = stack.enter_context(ThreadPoolExecutor(10))

        def answers() -> set[int]:
            calls = [threads.submit(http.get, "/api/v1/requests") for _ in range(10)]
            return {call.result().status_code for call in calls}

        assert answers() == {200}
        database.signal(signal.SIGSTOP)
        try:
            eventually(lambda: http.get("/readyz").status_code == 503)  # The signal takes a moment.
            assert answers() == {503}, server.log()
        finally:
            database.signal(signal.SIGCONT)
        eventually(lambda: answers() == {200})
        assert "Traceback" not in server.log()
