"""Every recorded HTTP exchange, in order, against a fresh server: the answers are the original's.

DIFFERENCES holds the answers that are not; docs/wire-format.md gives the reason of each.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.e2e.processes import ServerProcess, running
from tests.reference.recordings import EXCHANGES, without_ids_and_times

LIMIT = 30.0
PENDING, RUNNING, COMPLETE, FAIL, STOPPED = 1, 2, 3, 4, 6

AWAITED = {
    "running": ("create", RUNNING),
    "get-finished": ("create", COMPLETE),
    "get-stopped": ("create-to-stop", STOPPED),
    "get-failed": ("create-failing", FAIL),
}
"""What was waited for before an exchange was recorded: a state of the request that another one made."""

NOT_FOUND = "request nosuch not found"
WRONG_STATE = "request in state {}, expected state {}"

BAD_NUMBER = 'invalid {!r} parameter: "{}" cannot be parsed to uint: it must be a whole number from 0'

DIFFERENCES: dict[str, dict[str, Any]] = {
    # An empty list is [].
    "find-type-user": {"body": []},
    "find-since": {"body": []},
    "find-until": {"body": []},
    # What is not there is 404.
    "jr-running-unknown": {"status": 404},
    "log-unknown": {"status": 404, "error": "request nosuch not found"},
    # What the caller can mend is 400.
    "create-unknown-type": {"status": 400},
    "jr-new-chain-not-pending": {"status": 400},
    "jr-resume-bad": {"status": 400},
    # A request in the wrong state for the call is 409.
    "start-running": {"status": 409},
    "finish-complete": {"status": 409},
    "suspend-complete": {"status": 409},
    # What can be sent again may be sent again.
    "stop-stopped": {"status": 200, "body": None},
    "log-create-again": {"status": 201, "body": "log-create"},
    "jr-new-chain-again": {"status": 200, "body": None, "headers": "jr-new-chain"},
    # A plain sentence in place of a language's own formatting.
    "find-bad-since": {
        "error": "invalid 'since' parameter: \"yesterday\" cannot be parsed to time.Time using"
        " RFC3339Nano format: give it as <time>"
    },
    "find-bad-limit": {"error": BAD_NUMBER.format("limit", "ten")},
    "find-bad-offset": {"error": BAD_NUMBER.format("offset", "-1")},
    "log-job-unknown": {"error": "job zzzz not found in request <request>"},
}

UNKNOWN = "nosuch"


class Replay:
    """A fresh server, and what stands in it for the ids and addresses of the recording."""

    def __init__(self, server: ServerProcess) -> None:
        self.base = {
            "rm": "http://" + server.address("request-manager", "http"),
            "jr": "http://" + server.address("job-runner", "http"),
        }
        self._client = httpx.Client(timeout=LIMIT, headers={"Accept-Encoding": "identity"})
        self._ids: dict[str, str] = {}
        self.made: dict[str, str] = {}
        self.bodies: dict[str, Any] = {}

    def close(self) -> None:
        self._client.close()

    def ask(self, one: dict[str, Any]) -> httpx.Response:
        """Sends what was sent, when what was waited for is there."""
        self._await(one["name"])
        answer = self._client.request(
            one["method"],
            self.base[one["server"]] + self.translated(one["path"]),
            headers=one["requestHeaders"],
            content=None if one["requestBody"] is None else self.translated(one["requestBody"]).encode(),
        )
        if one["status"] == 201 and one["name"].startswith("create"):
            recorded, made = json.loads(one["body"])["id"], answer.json()["id"]
            self._ids[recorded], self.made[one["name"]] = made, made
        if one["name"] == "create":
            self._learn_job_ids(made)
        return answer

    def translated(self, text: str) -> str:
        """Returns a recorded text with the ids of this server."""
        for recorded, own in self._ids.items():
            text = text.replace(recorded, own)
        return text

    def _learn_job_ids(self, request_id: str) -> None:
        """The only job of this name, here and in the recording."""
        recorded = next(one for one in EXCHANGES if one["name"] == "job-chain")
        own = self._client.get(f"{self.base['rm']}/api/v1/requests/{request_id}/job-chain").json()
        ids = [
            [job["id"] for job in chain["jobs"].values() if job["name"] == "sleep"]
            for chain in (json.loads(recorded["body"]), own)
        ]
        self._ids[ids[0][0]] = ids[1][0]

    def _await(self, name: str) -> None:
        deadline = time.monotonic() + LIMIT
        if name in AWAITED:
            made, state = AWAITED[name]
            url = f"{self.base['rm']}/api/v1/requests/{self.made[made]}"
            while self._client.get(url).json()["state"] != state:
                assert time.monotonic() < deadline, f"{made} never came to state {state}"
                time.sleep(0.01)
        if name in ("running", "jr-running-chain"):
            url = self.base["jr"] + "/api/v1/status/running"
            while not any(job["type"] == "sleep" for job in self._client.get(url).json()):
                assert time.monotonic() < deadline, "no job runs"
                time.sleep(0.01)


@pytest.fixture(scope="module")
def replay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replay]:
    with running("server", "--http=127.0.0.1:0", directory=tmp_path_factory.mktemp("replay")) as server:
        server.wait_for("runner reports")
        replay = Replay(server)
        yield replay
        replay.close()


@pytest.mark.parametrize("one", EXCHANGES, ids=lambda one: one["name"])
def test_the_answer_is_the_recorded_one(replay: Replay, one: dict[str, Any]) -> None:
    answer = replay.ask(one)
    difference = DIFFERENCES.get(one["name"], {})
    assert answer.status_code == difference.get("status", one["status"])

    body = parsed(answer.text, answer.headers)
    expected = parsed(replay.translated(one["body"]), one["headers"])
    headers = one["headers"]
    if isinstance(difference.get("body"), str):
        expected = replay.bodies[difference["body"]]
    elif "body" in difference:
        expected = difference["body"]
    if "headers" in difference:
        headers = next(other["headers"] for other in EXCHANGES if other["name"] == difference["headers"])
    if answer.status_code >= 400 and isinstance(expected, dict) and "httpStatus" in expected:
        expected["httpStatus"] = answer.status_code
        expected["requestId"] = request_id_of(replay.translated(one["path"]))
    elif answer.status_code >= 400 and "status" in difference and isinstance(expected, list):
        expected = {"httpStatus": answer.status_code, "requestId": UNKNOWN}
    if "error" in difference:
        expected["message"] = difference["error"]
    if one["name"].startswith("find-") and isinstance(expected, list):  # the recorded table held older ones
        expected = [request for request in expected if request["id"] in replay.made.values()]
    replay.bodies[one["name"]] = body
    assert comparable(body) == comparable(expected)

    is_empty = expected is None and headers.get("Content-Length") == "0"
    assert answer.headers.get("Content-Type", "").lower() == (
        "" if is_empty or answer.text == "" else headers["Content-Type"].lower()
    )
    assert answer.headers["X-Spincycle-Version"] == headers["X-Spincycle-Version"]
    assert located(answer.headers) == located(headers)


def parsed(text: str, headers: Any) -> Any:
    """Returns a body as JSON, as text, or as None if there is none."""
    return json.loads(text) if "json" in headers.get("Content-Type", "") else text or None


def request_id_of(path: str) -> str:
    """Returns the request that a path is about, or an empty string."""
    found = re.search(r"/(?:requests|job-chains)/([^/?]+)", path)
    return found[1] if found else ""


def located(headers: Any) -> str:
    """Returns the Location without ids and the server's address; the original's runner is at its own port."""
    return str(without_ids_and_times(headers.get("Location", "")))


def comparable(body: Any) -> Any:
    """Returns a body without what differs from run to run: ids, times, and how far a request has come."""
    body = without_ids_and_times(without_progress(body))
    if isinstance(body, list) and body and "try" in body[0]:  # by job ids, which are random
        body.sort(key=json.dumps)
    return body


def without_progress(body: Any) -> Any:
    if isinstance(body, list):
        return [without_progress(part) for part in body]
    if not isinstance(body, dict):
        return body
    runs = body.get("state") == RUNNING
    return {key: without_progress(part) for key, part in body.items() if not (runs and key == "finishedJobs")}


def test_every_difference_is_one_of_a_recorded_exchange() -> None:
    assert DIFFERENCES.keys() <= {one["name"] for one in EXCHANGES}
