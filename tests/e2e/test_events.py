"""Server-sent events of a real server: to the end of a request, resumed, and while the server stops."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from spincycle_grpc import Client, State
from tests.e2e.processes import ServerProcess, running
from tests.limits import ANSWER, PROCESS_START

MAX_WATCHERS = 2


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    environment = {"SPINCYCLE_SERVER_MAX_WATCHERS": str(MAX_WATCHERS), "SPINCYCLE_SERVER_MAX_REQUESTS": "2"}
    with running("server", "--http=127.0.0.1:0", directory=tmp_path, environment=environment) as server:
        server.wait_for("runner reports", PROCESS_START)
        yield server


@pytest.fixture
def http(server: ServerProcess) -> Iterator[httpx.Client]:
    base = f"http://{server.address('request-manager', 'http')}/api/v1"
    with httpx.Client(base_url=base, timeout=ANSWER) as client:
        yield client


def created(http: httpx.Client, milliseconds: int) -> str:
    answer = http.post("/requests", json={"type": "nap", "args": {"ms": str(milliseconds)}})
    return str(answer.raise_for_status().json()["id"])


def events(answer: httpx.Response) -> Iterator[tuple[str, str, Any]]:
    """Yields type, id and data of each event that has data."""
    event = {"event": "message", "id": ""}
    for line in answer.iter_lines():
        name, _, value = line.partition(": ")
        if name in ("event", "id"):
            event[name] = value
        elif name == "data":
            yield event["event"], event["id"], json.loads(value)
            event = {"event": "message", "id": ""}


def test_a_request_is_followed_to_its_end_and_resumed(server: ServerProcess, http: httpx.Client) -> None:
    request_id = created(http, 300)
    with http.stream("GET", f"/requests/{request_id}/watch") as answer:
        found = list(events(answer))
    *messages, end = found
    assert end == ("end", "", {})
    tries = [entry["jobId"] for _, _, message in messages for entry in message.get("tries", [])]
    log = http.get(f"/requests/{request_id}/log").json()
    assert sorted(tries) == sorted(entry["jobId"] for entry in log)
    states = [one["state"] for _, _, message in messages for one in message.get("requests", [])]
    assert states[-1] == State.COMPLETE
    first, last = messages[0][1], messages[-1][1]
    resumed = http.get(f"/requests/{request_id}/watch", headers={"Last-Event-ID": last})
    assert (resumed.status_code, resumed.content) == (204, b"")
    with Client(server.address("request-manager", "grpc")) as client:
        assert not list(client.watch(request_id, cursor=last))
        rest = [entry.job_id for message in client.watch(request_id, cursor=first) for entry in message.tries]
    seen = [entry["jobId"] for entry in messages[0][2].get("tries", [])]
    assert sorted(seen + rest) == sorted(tries)


def test_a_filter_shows_later_requests(http: httpx.Client) -> None:
    with http.stream("GET", "/watch", params={"type": "nap"}) as answer:
        stream = events(answer)
        assert next(stream)[2]["snapshotComplete"]
        request_id = created(http, 1)
        for _, _, message in stream:
            if any(
                one["id"] == request_id and one["state"] == State.COMPLETE
                for one in message.get("requests", [])
            ):
                break


def test_errors_before_the_first_event_are_plain_errors(http: httpx.Client) -> None:
    missing = http.get("/requests/nosuch/watch")
    assert (missing.status_code, missing.headers["x-spincycle-reason"]) == (404, "REQUEST_NOT_FOUND")
    wrong = http.get("/watch", headers={"Last-Event-ID": "nonsense"})
    assert (wrong.status_code, wrong.headers["x-spincycle-reason"]) == (400, "BAD_CURSOR")


def test_watchers_are_bounded_and_take_no_place_of_calls(http: httpx.Client) -> None:
    request_id = created(http, 3_600_000)
    path = f"/requests/{request_id}/watch"
    with http.stream("GET", path) as one, http.stream("GET", path) as two:
        streams = [events(one), events(two)]  # A stream whose iterator is deleted is closed.
        assert [next(stream)[0] for stream in streams] == ["message", "message"]
        full = http.get(path)
        assert (full.status_code, full.headers["x-spincycle-reason"]) == (429, "TOO_MANY_WATCHERS")
        assert http.get(f"/requests/{request_id}").status_code == 200
    for _ in range(100):
        with http.stream("GET", path) as again:
            if again.status_code == 200:
                break
    assert again.status_code == 200


def test_a_server_that_stops_ends_its_streams_at_once(server: ServerProcess, http: httpx.Client) -> None:
    request_id = created(http, 3_600_000)
    with http.stream("GET", f"/requests/{request_id}/watch") as answer:
        stream = events(answer)
        next(stream)
        stopping = threading.Thread(target=server.terminate)
        stopping.start()
        *_, (kind, _, data) = stream
        stopping.join()
    assert (kind, data["reason"], data["httpStatus"]) == ("error", "SHUTTING_DOWN", 503)
    assert server.process.returncode == 0
