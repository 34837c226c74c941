"""Real servers on a database of the original: they serve its requests and resume the suspended ones."""

from __future__ import annotations

import contextlib
import http.server as http_server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from spincycle_grpc.state import State
from spincycle_server.maintenance.migrating import upgrade_database
from spincycle_server.store import DatabaseOptions
from tests.databases import SharedServers, engine_of
from tests.e2e.processes import ServerProcess, running
from tests.e2e.waiting import eventually, wait_state
from tests.limits import ANSWER
from tests.maintenance import original
from tests.maintenance.original import OriginalRequest
from tests.maintenance.original_counters import COMPLETE, OriginalChain

LOG_KEYS = {
    "jobId": "job_id", "name": "name", "try": "try", "type": "type", "state": "state", "exit": "exit",
    "startedAt": "started_at", "finishedAt": "finished_at", "error": "error",
}  # fmt: skip


@pytest.fixture(params=original.EXITS)
def url(request: pytest.FixtureRequest, database_servers: SharedServers, tmp_path: Path) -> str:
    url = database_servers.url("mariadb", tmp_path)
    original.make_original(url, request.param)
    upgrade_database(url, DatabaseOptions())
    return url


@pytest.fixture
def http(url: str, tmp_path: Path) -> Iterator[httpx.Client]:
    """A Request Manager without a Job Runner, so that no request changes by itself."""
    dsn = "root@tcp({})/{}".format(*url.removeprefix("mysql://root@").split("/"))
    environment = {"SPINCYCLE_MYSQL_DSN": dsn, "SPINCYCLE_RESUME_INTERVAL": "200ms"}
    arguments = ("request-manager", "--http=127.0.0.1:0")
    with running(*arguments, directory=tmp_path, environment=environment) as manager:
        with httpx.Client(
            base_url=f"http://{manager.address('request-manager', 'http')}/api/v1", timeout=ANSWER
        ) as client:
            yield client
        assert manager.terminate() == 0, manager.log()


def zulu(time: str | None) -> str | None:
    """Returns a time of the database as it is on the wire: UTC, without trailing zeros."""
    if time is None:
        return None
    whole, _, fraction = time.replace(" ", "T").partition(".")
    fraction = fraction.rstrip("0")
    return f"{whole}.{fraction}Z" if fraction else f"{whole}Z"


def summary(request: OriginalRequest) -> dict[str, object]:
    summary: dict[str, object] = {
        "id": request.id, "type": "stop-host", "state": request.state, "user": request.user or "",
        "createdAt": zulu(request.created_at), "startedAt": zulu(request.started_at),
        "finishedAt": zulu(request.finished_at), "totalJobs": 4, "finishedJobs": request.finished_jobs,
    }  # fmt: skip
    if request.jr_url:
        summary["jrURL"] = request.jr_url
    return summary


def test_adopted_requests_are_served_unchanged(http: httpx.Client) -> None:
    newest_first = sorted(original.ALL, key=lambda request: request.created_at, reverse=True)
    # Two requests share a tenth of a second in their creation time, but not a microsecond.
    assert http.get("/requests").json() == [summary(request) for request in newest_first]
    for request in original.ALL:
        expected = summary(request) | {"JobChain": request.chain()}
        if request is original.PENDING:
            expected["waiting"] = (
                "the original Spin Cycle created it and may have denied it: start it if it must run"
            )
        if request.args:
            expected["args"] = request.args
        assert http.get(f"/requests/{request.id}").json() == expected
        assert http.get(f"/requests/{request.id}/job-chain").json() == request.chain()
        log = http.get(f"/requests/{request.id}/log").json()
        assert [{name: entry[name] for name in LOG_KEYS} for entry in log] == [
            {name: entry[column] for name, column in LOG_KEYS.items()} for entry in request.log
        ]
    failed = http.get(f"/requests/{original.COMPLETE.id}/log").json()[2]
    assert (failed["stdout"], failed["stderr"]) == ("grüß", "\N{REPLACEMENT CHARACTER}\0boom")
    found = http.get("/requests", params={"arg": "host=db1", "state": "COMPLETE"}).json()
    assert [one["id"] for one in found] == [original.COMPLETE.id]


def test_a_request_of_a_lost_original_runner_can_be_stopped(http: httpx.Client) -> None:
    path = f"/requests/{original.RUNNING.id}"
    assert http.get(path).json()["state"] == State.RUNNING
    for _ in range(2):
        assert http.put(f"{path}/stop").status_code == 200
    stopped = http.get(path).json()
    assert stopped["state"] == State.STOPPED
    assert (stopped["createdAt"], stopped["startedAt"]) == (
        zulu(original.RUNNING.created_at), zulu(original.RUNNING.started_at)
    )  # fmt: skip
    assert stopped["finishedAt"] is not None


@contextlib.contextmanager
def original_runner(url: str) -> Iterator[list[str]]:
    """A Job Runner of the original that runs a request. Yields the calls that it gets."""
    calls: list[str] = []
    jobs = [{"requestId": original.RUNNING.id, "jobId": "bbbb", "type": "sleep", "name": "sleep-bbbb",
             "startedAt": 1_795_450_211_083_581_917, "state": 2, "status": "sleeping"}]  # fmt: skip

    class Handler(http_server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            calls.append(f"{self.command} {self.path}")
            body = json.dumps(jobs).encode() if self.command == "GET" else b""
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = answer  # noqa: N815 (the names that http.server calls)

        def log_message(self, *_: object) -> None:
            """Logs nothing."""

    with http_server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with original.engine_of(url).begin() as connection:
            values = {"url": f"http://127.0.0.1:{server.server_port}", "id": original.RUNNING.id}
            connection.execute(text("UPDATE requests SET jr_url = :url WHERE request_id = :id"), values)
        yield calls
        server.shutdown()
        thread.join()


def test_a_request_on_a_live_original_runner_is_shown_and_stopped_there(url: str, http: httpx.Client) -> None:
    request_id = original.RUNNING.id
    with original_runner(url) as calls:

        def running() -> Any:
            status = http.get("/status/running", params={"requestId": request_id}).json()
            return status if status["jobs"] else None

        status = eventually(running)
        assert [(job["jobId"], job["status"]) for job in status["jobs"]] == [("bbbb", "sleeping")]
        assert status["requests"][request_id]["finishedJobs"] == 1
        assert "GET /api/v1/status/running" in calls
        assert http.put(f"/requests/{request_id}/stop").status_code == 200
        assert calls[-1] == f"PUT /api/v1/job-chains/{request_id}/stop"
        # The runner stops its jobs, and then reports to the Request Manager at the address that it knows.
        assert http.get(f"/requests/{request_id}").json()["state"] == State.RUNNING
        body = {"requestId": request_id, "state": 6, "finishedAt": "2026-11-20T09:00:00Z", "finishedJobs": 1}
        assert http.put(f"/requests/{request_id}/finish", json=body).status_code == 200
    assert http.get(f"/requests/{request_id}").json()["state"] == State.STOPPED
    assert eventually(lambda: not http.get("/status/running").json()["requests"])


def test_a_live_original_runner_may_finish_its_request(http: httpx.Client) -> None:
    request_id = original.RUNNING.id
    entry = {
        "requestId": request_id, "jobId": "bbbb", "try": 1, "name": "sleep-bbbb", "type": "sleep",
        "startedAt": 1, "finishedAt": 2, "state": 3, "exit": 0, "error": "", "stdout": "", "stderr": "",
    }  # fmt: skip
    assert http.post(f"/requests/{request_id}/log", json=entry).status_code == 201
    body = {
        "requestId": request_id,
        "state": 3,
        "finishedAt": "2026-11-20T09:00:00.000001Z",
        "finishedJobs": 4,
    }
    assert http.put(f"/requests/{request_id}/finish", json=body).status_code == 200
    finished = http.get(f"/requests/{request_id}").json()
    assert (finished["state"], finished["finishedAt"]) == (State.COMPLETE, "2026-11-20T09:00:00.000001Z")


def complete(http: httpx.Client, server: ServerProcess, request: OriginalRequest) -> None:
    """Waits until a request is COMPLETE."""
    ended = wait_state(http, request.id, State.COMPLETE, State.FAIL, State.STOPPED)
    assert (ended["state"], ended["finishedJobs"]) == (State.COMPLETE, 4), server.log()
    assert ended["createdAt"] == zulu(request.created_at)


def test_suspended_requests_resume_and_complete(url: str, tmp_path: Path) -> None:
    with running("server", "--http=127.0.0.1:0", f"--db={url}", directory=tmp_path) as server:
        base = f"http://{server.address('request-manager', 'http')}"
        with httpx.Client(base_url=base, timeout=ANSWER) as http:
            complete(http, server, original.SUSPENDED)
            log = http.get(f"/api/v1/requests/{original.SUSPENDED.id}/log").json()
            # The job that had ended does not run again. The stopped job does.
            assert [(entry["jobId"], entry["try"], entry["state"]) for entry in log] == [
                ("aaaa", 1, State.COMPLETE), ("bbbb", 1, State.STOPPED), ("bbbb", 2, State.COMPLETE),
                ("cccc", 1, State.COMPLETE), ("dddd", 1, State.COMPLETE),
            ]  # fmt: skip
            assert (log[3]["stdout"], log[3]["stderr"]) == ("hello", "warn")
            running_still = http.get(f"/api/v1/requests/{original.RUNNING.id}").json()
            assert (running_still["state"], running_still["finishedJobs"]) == (State.RUNNING, 1)
            # An original may have denied the request, so it runs when somebody starts it.
            path = f"/api/v1/requests/{original.PENDING.id}"
            assert http.get(path).json()["state"] == State.PENDING
            assert http.put(f"{path}/start").status_code == 200
            complete(http, server, original.PENDING)
        assert server.terminate() == 0, server.log()
    with original.engine_of(url).connect() as connection:
        left = connection.exec_driver_sql("SELECT COUNT(*) FROM suspended_job_chains").scalar()
    assert left == 0


def test_a_chain_that_a_real_runner_suspends_can_be_resumed_by_an_original(tmp_path: Path) -> None:
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs" / "nap.yaml").write_text(
        """
        sequences:
          nap:
            request: true
            args:
              required: [{name: ms}]
            nodes:
              nap: {category: job, type: sleep, args: [{expected: duration, given: ms}], retry: 1}
        """
    )
    with running("server", "--http=127.0.0.1:0", "--specs=specs", directory=tmp_path) as server:
        base = f"http://{server.address('request-manager', 'http')}/api/v1"
        with httpx.Client(base_url=base, timeout=ANSWER) as http:
            made = http.post("/requests", json={"type": "nap", "args": {"ms": "3600000"}}).json()
            [job] = eventually(lambda: http.get("/status/running").json()["jobs"])
        assert server.terminate() == 0, server.log()
    with engine_of(f"sqlite:///{tmp_path / 'spincycle.db'}").connect() as connection:
        [data] = connection.execute(text("SELECT suspended_job_chain FROM suspended_job_chains")).scalars()
    chain = json.loads(data)
    assert (chain["requestId"], chain["jobChain"]["state"]) == (made["id"], State.SUSPENDED)
    # As an original leaves it: the job is STOPPED, and its stopped try is counted.
    assert chain["jobChain"]["jobs"][job["jobId"]]["state"] == State.STOPPED
    assert (chain["totalJobTries"][job["jobId"]], chain["latestRunJobTries"][job["jobId"]]) == (1, 1)
    resumed = OriginalChain(chain)
    assert resumed.tries_left(job["jobId"]) == 2
    assert resumed.try_job(job["jobId"], COMPLETE) == 2
