"""Several workers behind one address: all serve, dead ones are replaced, and no accepted request is lost."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator, Sized
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest

from spincycle_grpc.state import FINAL_STATES, State
from spincycle_grpc.v1 import request_manager_pb2 as messages
from tests.databases import SharedServers
from tests.e2e.processes import running
from tests.e2e.waiting import eventually, wait_state
from tests.e2e.worker_servers import (
    WORKERS,
    WorkerServer,
    all_workers,
    job_runner,
    port_of,
    refuses,
    worker_server,
)
from tests.journal_jobs import read_journal
from tests.limits import ANSWER, PROCESS_END, STEP
from tests.ports import free_port

CREATED = "spincycle_requests_created_total"
IN_FLIGHT = 'spincycle_limit_used{"limit": "concurrent_calls", "server": "request-manager"}'


@pytest.fixture(params=["mariadb", "postgresql"])
def url(request: pytest.FixtureRequest, database_servers: SharedServers, tmp_path: Path) -> Iterator[str]:
    with database_servers.migrated(request.param, tmp_path) as found:
        yield found


@pytest.fixture
def postgresql(database_servers: SharedServers, tmp_path: Path) -> Iterator[str]:
    with database_servers.migrated("postgresql", tmp_path) as found:
        yield found


def create(http: httpx.Client, key: str = "", **args: str) -> str:
    headers = {"Idempotency-Key": key} if key else {}
    answer = http.post("/api/v1/requests", json={"type": "work", "args": args}, headers=headers)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def test_all_workers_serve_and_answer_for_the_whole(url: str, tmp_path: Path) -> None:
    with (
        worker_server(tmp_path, url) as server,
        job_runner(tmp_path, server),
        all_workers(server) as stubs,
        contextlib.ExitStack() as stack,
    ):
        clients: list[httpx.Client] = []
        made = []
        while not clients or not all(server.connections(server.http).values()):
            clients.append(stack.enter_context(server.connect()))
            made.append(create(clients[-1]))
            assert len(clients) < 300, server.connections(server.http)
        for stub in stubs:
            made.append(stub.Create(messages.CreateRequest(type="work"), timeout=ANSWER).request.id)
        for request_id in made:
            assert wait_state(clients[0], request_id, *FINAL_STATES)["state"] == State.COMPLETE
        ended = "spincycle_requests_ended_total"
        eventually(lambda: server.total(ended, outcome="COMPLETE") == len(made))
        for _ in range(4 * WORKERS):  # whichever worker answers
            assert server.total(CREATED, type="work") == len(made)
        supervisor = psutil.Process(server.process.process.pid)
        assert supervisor.num_threads() == 1, "it could not fork safely"
        series = server.metrics()
        assert series['spincycle_workers{"state": "answering"}'] == WORKERS
        assert series['spincycle_ready{"server": "request-manager"}'] == 1
        assert series['spincycle_limit{"limit": "waiting_requests", "server": "request-manager"}'] == 10_000
        assert (
            500 <= series['spincycle_limit{"limit": "concurrent_calls", "server": "request-manager"}'] < 503
        )
        calls = server.total("spincycle_calls_total", method="RequestManager.Create", transport="grpc")
        assert calls == len(stubs)
        for stub in stubs:
            shown = stub.GetConfiguration(messages.GetConfigurationRequest(), timeout=ANSWER).options
            values = {one.name: one.value for one in shown}
            assert (values["server.max_requests"], values["server.workers"]) == ("500", str(WORKERS))
        found = {one.get("/api/v1/requests?limit=1000").text for one in clients}
        assert len(found) == 1
        assert server.process.terminate() == 0
    events = server.process.events
    assert sum(event["message"] == "listening" for event in events) == 1
    assert not [event for event in events if event["level"] in ("error", "critical", "raw")]


def test_killed_workers_are_replaced_and_every_accepted_request_ends_once(url: str, tmp_path: Path) -> None:
    accepted: dict[str, str] = {}
    ends = threading.Event()

    def load(thread: int) -> None:
        number = 0
        while not ends.wait(0.1):
            number += 1
            key = f"{thread}-{number}"
            while True:
                with contextlib.suppress(httpx.TransportError), server.connect() as http:
                    accepted[key] = create(http, key)
                    break

    with worker_server(tmp_path, url) as server, job_runner(tmp_path, server):
        threads = [threading.Thread(target=load, args=(thread,)) for thread in range(4)]
        for thread in threads:
            thread.start()
        created = 0.0
        try:
            for number in (1, 2, 3, 1):
                enough = len(accepted) + 20
                eventually(partial(_has, accepted, enough))
                now = server.total(CREATED)
                assert now >= created
                created = now
                pid = server.pids()[number]
                os.kill(pid, signal.SIGKILL)
                server.wait_replaced(number, pid)
                assert server.total(CREATED) >= created, "a counter went back"
        finally:
            ends.set()
            for thread in threads:
                thread.join(ANSWER)
        with server.connect() as http:
            for request_id in accepted.values():
                assert wait_state(http, request_id, *FINAL_STATES)["state"] == State.COMPLETE
        assert server.metrics()["spincycle_replaced_workers_total{}"] == 4
        replaced = [event for event in server.process.events if event["message"].startswith("worker ended")]
        assert [(one["worker"], one["status"]) for one in replaced] == [(1, -9), (2, -9), (3, -9), (1, -9)]
        assert server.process.terminate() == 0
    begun = Counter(
        line["request"] for line in read_journal(tmp_path / "journal") if line["event"] == "start"
    )
    assert begun == dict.fromkeys(accepted.values(), 2)


def test_a_killed_supervisor_takes_its_workers_along_and_frees_the_ports(
    postgresql: str, tmp_path: Path
) -> None:
    address = f"--http=127.0.0.1:{free_port()}"
    with worker_server(tmp_path, postgresql, address) as server:
        processes = [psutil.Process(pid) for pid in server.pids().values()]
        processes[0].suspend()  # It could not notice anything by itself.
        server.process.kill()
        _, alive = psutil.wait_procs(processes, PROCESS_END)
        assert not alive
        assert refuses(server.http)
        assert refuses(server.grpc)
    with worker_server(tmp_path, postgresql, address) as server, server.connect() as http:
        assert http.get("/readyz").status_code == 200


def test_sigterm_finishes_calls_and_ends_all_workers(postgresql: str, tmp_path: Path) -> None:
    environment = {"SPINCYCLE_SERVER_STOP_TIMEOUT": f"{STEP:g}s"}
    with (
        worker_server(tmp_path, postgresql, environment=environment) as server,
        contextlib.ExitStack() as stack,
    ):
        pids = server.pids()
        calls: list[socket.socket] = []
        while not calls or not all(server.connections(server.http).values()):
            calls.append(stack.enter_context(call_in_flight(server, tmp_path)))
            assert len(calls) < 16, server.connections(server.http)
        eventually(lambda: server.metrics()[IN_FLIGHT] == len(calls))
        server.process.process.send_signal(signal.SIGTERM)
        for number in pids:
            server.process.wait_for("shutting down", worker=number)
        (tmp_path / "gate").touch()
        assert [call.recv(1000).split()[1] for call in calls] == [b"201"] * len(calls)
        assert server.process.process.wait(PROCESS_END) == 0
        assert refuses(server.http)
        assert refuses(server.grpc)
        assert not [pid for pid in pids.values() if psutil.pid_exists(pid)]


@contextlib.contextmanager
def call_in_flight(server: WorkerServer, directory: Path) -> Iterator[socket.socket]:
    """Yields a connection whose call ends when there is a file `gate` in the directory."""
    body = json.dumps({"type": "gated", "args": {"gate": str(directory / "gate")}}).encode()
    head = (
        f"POST /api/v1/requests HTTP/1.1\r\nHost: {server.http}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port_of(server.http)), ANSWER) as connection:
        connection.sendall(head.encode() + body)
        yield connection


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_all_workers_at_once(
    number: signal.Signals, postgresql: str, tmp_path: Path
) -> None:
    environment = {"SPINCYCLE_SERVER_STOP_TIMEOUT": f"{STEP:g}s"}
    with (
        worker_server(tmp_path, postgresql, environment=environment) as server,
        call_in_flight(server, tmp_path),
    ):
        processes = [psutil.Process(pid) for pid in server.pids().values()]
        eventually(lambda: server.metrics()[IN_FLIGHT] == 1)
        server.process.process.send_signal(number)
        server.process.wait_for("shutting down", signal=number.name)
        server.process.process.send_signal(number)
        assert server.process.process.wait(PROCESS_END) == 128 + number
        _, alive = psutil.wait_procs(processes, PROCESS_END)
        assert not alive


@pytest.mark.parametrize(
    ("taken", "option"),
    [
        ("--http", "server.addr (--http)"),
        ("--grpc", "server.grpc (--grpc)"),
        ("metrics", "server.metrics"),
    ],
)
def test_a_taken_port_is_one_error(taken: str, option: str, postgresql: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        address = f"127.0.0.1:{holder.getsockname()[1]}"
        arguments = ["--http=127.0.0.1:0"] + ([f"{taken}={address}"] if taken.startswith("--") else [])
        environment = {"SPINCYCLE_SERVER_METRICS": address} if taken == "metrics" else {}
        with running(
            "request-manager", "--workers=2", f"--db={postgresql}", *arguments, directory=tmp_path,
            environment=environment,
        ) as server:  # fmt: skip
            assert server.process.wait(PROCESS_END) == 1
            server.close()
            assert f"the address is in use (option {option})" in server.events[-1]["message"]
            assert not [event for event in server.events if event["message"] == "worker started"]


def test_a_second_server_cannot_share_the_ports_of_workers(postgresql: str, tmp_path: Path) -> None:
    with worker_server(tmp_path, postgresql) as server:
        for workers in (1, 2):
            with running(
                "request-manager", f"--workers={workers}", f"--db={postgresql}", "--http=127.0.0.1:0",
                f"--grpc={server.grpc}", directory=tmp_path,
            ) as second:  # fmt: skip
                assert second.process.wait(PROCESS_END) == 1
                second.close()
                assert "(option server.grpc (--grpc))" in second.events[-1]["message"]


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["request-manager", "--workers=2"], {}, "SQLite allows one worker"),
        (["request-manager", "--workers=0"], {}, "must be a whole number, at least 1"),
        (["request-manager", "--workers=65"], {}, "must be at most 64"),
        (["server"], {"SPINCYCLE_SERVER_WORKERS": "2"}, "`spincycle server` is one process"),
        (
            ["request-manager", "--workers=2", "--db=postgresql://x@127.0.0.1/x", "--grpc=unix:grpc.sock"],
            {},
            "several workers cannot share the unix socket grpc.sock",
        ),
    ],
)
def test_what_workers_cannot_do_is_refused(
    arguments: list[str], environment: dict[str, str], message: str, tmp_path: Path
) -> None:
    with running(*arguments, directory=tmp_path, environment=environment) as server:
        assert server.process.wait(PROCESS_END) == 2
        server.close()
        assert message in server.events[-1]["message"]


def test_a_worker_that_cannot_start_is_reported_once(postgresql: str, tmp_path: Path) -> None:
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs" / "bad.yaml").write_text("sequences: {a: 1}\n")
    with running(
        "request-manager", "--workers=3", f"--db={postgresql}", "--http=127.0.0.1:0",
        directory=tmp_path, environment={"SPINCYCLE_SPECS_DIR": "specs"},
    ) as server:  # fmt: skip
        assert server.process.wait(PROCESS_END) == 2
        server.close()
        assert sum(event["message"].startswith("spincycle: ") for event in server.events) == 1
        [started] = [event for event in server.events if event["message"] == "worker started"]
        assert started["worker"] == 1


def test_a_worker_whose_replacement_cannot_start_is_tried_again(postgresql: str, tmp_path: Path) -> None:
    with worker_server(tmp_path, postgresql) as server:
        bad = tmp_path / "specs" / "bad.yaml"
        bad.write_text("sequences: {a: 1}\n")
        pid = server.pids()[2]
        os.kill(pid, signal.SIGKILL)
        server.process.wait_for("worker ended: it is replaced", worker=2, status=2)
        with server.connect() as http:
            assert http.get("/readyz").status_code == 200
        bad.unlink()
        server.wait_replaced(2, pid)
        assert server.process.terminate() == 0


def test_a_silent_worker_is_left_out_of_the_metrics_and_counted(postgresql: str, tmp_path: Path) -> None:
    silent = 'spincycle_workers{"state": "silent"}'
    with worker_server(tmp_path, postgresql) as server, all_workers(server) as stubs:
        for stub in stubs:
            stub.Create(messages.CreateRequest(type="work"), timeout=ANSWER)
        assert server.total(CREATED) == len(stubs)
        frozen = psutil.Process(server.pids()[1])
        frozen.suspend()
        try:
            # A frozen worker accepts no connections, so another one answers.
            series = eventually(lambda: (found := server.metrics())[silent] == 1 and found)
            assert series['spincycle_workers{"state": "answering"}'] == WORKERS - 1
            created = [value for name, value in series.items() if name.startswith(CREATED)]
            assert sum(created) == len(stubs), "counters of the silent worker must not vanish"
        finally:
            frozen.resume()
        eventually(lambda: server.metrics()[silent] == 0)


def _has(found: Sized, number: int) -> bool:
    return len(found) >= number
