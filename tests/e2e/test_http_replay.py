"""Replays all recorded HTTP exchanges in order against a new server and compares the answers.

DIFFERENCES lists the answers that differ from the original's. Each entry names the row of the table in
docs/wire-format.md that explains it. An answer may not differ without such a row.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import httpx
import pytest

from tests.e2e.processes import REPOSITORY, ServerProcess, running
from tests.limits import ANSWER, REQUEST_END
from tests.reference.recordings import EXCHANGES, without_ids_and_times

PENDING, RUNNING, COMPLETE, FAIL, STOPPED = 1, 2, 3, 4, 6

AWAITED = {
    "running": ("create", RUNNING),
    "get-finished": ("create", COMPLETE),
    "get-stopped": ("create-to-stop", STOPPED),
    "get-failed": ("create-failing", FAIL),
}
"""By exchange: the exchange that created a request, and the state to wait for before this exchange."""

BAD_NUMBER = 'invalid {!r} parameter: "{}" cannot be parsed to uint: it must be a whole number from 0'

EMPTY = "an empty list or map"
REQUEST_ID = "`requestId` of an error about one request"
FORMATTING = "messages with formatting errors (`%!w(...)`) or database errors (`Error 1062`)"
WRONG_STATE = "a request in the wrong state for the call"
BAD_CHAIN = "an invalid job chain sent to a Job Runner"


@dataclass(frozen=True)
class Difference:
    """How an answer differs from the recorded answer.

    Attributes:
        row: The first column of the row in docs/wire-format.md.
        status: The status if it differs.
        body: The body if it differs. "<name>" stands for the body of the exchange with this name.
        message: The error message if it differs.
        headers: The exchange whose headers the answer has if they differ.
    """

    row: str
    status: int | None = None
    body: Any = ...
    message: str | None = None
    headers: str | None = None


DIFFERENCES = {
    "find-type-user": Difference(EMPTY, body=[]),
    "find-since": Difference(EMPTY, body=[]),
    "find-until": Difference(EMPTY, body=[]),
    "jr-running-unknown": Difference("running jobs of one unknown request, from a Job Runner", status=404),
    "log-unknown": Difference(
        "the log of an unknown request",
        status=404,
        body={"message": "request nosuch not found", "requestId": "nosuch", "httpStatus": 404},
    ),
    "create-unknown-type": Difference(
        "unknown request type, missing required arg, `if` that matches nothing, "
        "`each` over a value that is not a list",
        status=400,
    ),
    "jr-new-chain-not-pending": Difference(BAD_CHAIN, status=400),
    "jr-resume-bad": Difference(BAD_CHAIN, status=400),
    "start-running": Difference(WRONG_STATE, status=409),
    "finish-complete": Difference(WRONG_STATE, status=409),
    "suspend-complete": Difference(WRONG_STATE, status=409),
    "stop-stopped": Difference("stop of a STOPPED request", status=200, body=None, headers="stop"),
    "log-create-again": Difference(
        "the same job log entry sent again", status=201, body="<log-create>", headers="log-create"
    ),
    "jr-new-chain-again": Difference(
        "the same chain sent to a Job Runner again", status=200, body=None, headers="jr-new-chain"
    ),
    "find-bad-since": Difference(
        FORMATTING,
        message="invalid 'since' parameter: \"yesterday\" cannot be parsed to time.Time using"
        " RFC3339Nano format: give it as <time>",
    ),
    "find-bad-limit": Difference(FORMATTING, message=BAD_NUMBER.format("limit", "ten")),
    "find-bad-offset": Difference(FORMATTING, message=BAD_NUMBER.format("offset", "-1")),
    "log-job-unknown": Difference(FORMATTING, message="job zzzz not found in request <request>"),
}


class Replay:
    """A new server, and how its ids correspond to those of the recording."""

    def __init__(self, server: ServerProcess) -> None:
        self.base = {
            "rm": "http://" + server.address("request-manager", "http"),
            "jr": "http://" + server.address("job-runner", "http"),
        }
        self._client = httpx.Client(timeout=ANSWER, headers={"Accept-Encoding": "identity"})
        self._ids: dict[str, str] = {}
        self.made: dict[str, str] = {}
        self.answers: dict[str, httpx.Response] = {}

    def close(self) -> None:
        self._client.close()

    def run(self) -> None:
        """Sends all recorded requests in order and keeps the answers."""
        for one in EXCHANGES:
            self.answers[one["name"]] = self._ask(one)

    def _ask(self, one: dict[str, Any]) -> httpx.Response:
        """Waits for the state that the exchange needs, then sends its request."""
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
        """Replaces the ids in a recorded text with those of this server."""
        for recorded, own in self._ids.items():
            text = text.replace(recorded, own)
        return text

    def _learn_job_ids(self, request_id: str) -> None:
        """Maps the id of the recorded job `sleep` to the job with that name on this server."""
        recorded = next(one for one in EXCHANGES if one["name"] == "job-chain")
        own = self._client.get(f"{self.base['rm']}/api/v1/requests/{request_id}/job-chain").json()
        ids = [
            [job["id"] for job in chain["jobs"].values() if job["name"] == "sleep"]
            for chain in (json.loads(recorded["body"]), own)
        ]
        self._ids[ids[0][0]] = ids[1][0]

    def _await(self, name: str) -> None:
        deadline = time.monotonic() + REQUEST_END
        if name in AWAITED:
            made, state = AWAITED[name]
            url = f"{self.base['rm']}/api/v1/requests/{self.made[made]}"
            while self._client.get(url).json()["state"] != state:
                assert time.monotonic() < deadline, f"the request of {made} did not reach state {state}"
                time.sleep(0.01)
        if name in ("running", "jr-running-chain"):
            url = self.base["jr"] + "/api/v1/status/running"
            while not any(job["type"] == "sleep" for job in self._client.get(url).json()):
                assert time.monotonic() < deadline, "no job runs"
                time.sleep(0.01)


@pytest.fixture(scope="module")
def replay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replay]:
    directory = tmp_path_factory.mktemp("replay")
    environment = {"SPINCYCLE_CLUSTER_OPEN": "true"}  # The recording calls the methods for servers, too.
    with running("server", "--http=127.0.0.1:0", directory=directory, environment=environment) as server:
        server.wait_for("runner reports")
        replay = Replay(server)
        replay.run()
        yield replay
        replay.close()


@pytest.mark.parametrize("one", EXCHANGES, ids=lambda one: one["name"])
def test_the_answer_is_as_recorded_or_a_documented_difference(replay: Replay, one: dict[str, Any]) -> None:
    answer = replay.answers[one["name"]]
    difference = DIFFERENCES.get(one["name"], Difference(""))
    assert answer.status_code == (difference.status or one["status"])

    assert comparable(parsed(answer.text, answer.headers)) == comparable(
        expected_body(replay, one, difference)
    )
    assert answer.text.endswith("\n") == (one["body"].endswith("\n") and difference.body is not None)

    headers = one["headers"]
    if difference.headers is not None:
        headers = next(other["headers"] for other in EXCHANGES if other["name"] == difference.headers)
    for name in ("Content-Type", "X-Spincycle-Version"):
        assert answer.headers.get(name) == headers.get(name)
    assert located(answer.headers) == located(headers)


def expected_body(replay: Replay, one: dict[str, Any], difference: Difference) -> Any:
    """Returns the recorded body, with the documented differences applied."""
    expected = parsed(replay.translated(one["body"]), one["headers"])
    if isinstance(difference.body, str):
        other = replay.answers[difference.body.strip("<>")]
        return parsed(other.text, other.headers)
    if difference.body is not ...:
        return difference.body
    if isinstance(expected, dict) and "httpStatus" in expected:
        expected["httpStatus"] = difference.status or expected["httpStatus"]
        if REQUEST_ID in documented_rows():
            expected["requestId"] = request_id_of(replay.translated(one["path"]))
    if difference.message is not None:
        expected["message"] = difference.message
    if one["name"].startswith("find-") and isinstance(
        expected, list
    ):  # The recorded database also had older requests.
        expected = [request for request in expected if request["id"] in replay.made.values()]
    return expected


@cache
def documented_rows() -> list[str]:
    """Returns the first column of the table of differences in docs/wire-format.md."""
    text = (REPOSITORY / "docs" / "wire-format.md").read_text(encoding="utf-8")
    lines = text.partition("\n## Differences\n")[2].partition("\n## ")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("|")]
    assert all(len(row) == 4 and all(row) for row in rows), "a row of the table lacks a column or a reason"
    return [row[0] for row in rows[2:]]


def parsed(text: str, headers: Any) -> Any:
    """Returns a body as parsed JSON, as text, or as None if it is empty."""
    return json.loads(text) if "json" in headers.get("Content-Type", "") else text or None


def request_id_of(path: str) -> str:
    """Returns the request id in a path, or an empty string."""
    found = re.search(r"/(?:requests|job-chains)/([^/?]+)", path)
    return found[1] if found else ""


def located(headers: Any) -> str:
    """Returns the Location header without ids and addresses, because ports differ."""
    return str(without_ids_and_times(headers.get("Location", "")))


def comparable(body: Any) -> str:
    """Returns a body as text without ids, times, and progress, which differ between runs."""
    body = without_ids_and_times(without_progress(body))
    if (
        isinstance(body, list) and body and "try" in body[0]
    ):  # The recorded order is by job ids, which are random.
        body.sort(key=json.dumps)
    return json.dumps(body, indent=1)  # The order of keys is compared too.


def without_progress(body: Any) -> Any:
    if isinstance(body, list):
        return [without_progress(part) for part in body]
    if not isinstance(body, dict):
        return body
    runs = body.get("state") == RUNNING
    return {key: without_progress(part) for key, part in body.items() if not (runs and key == "finishedJobs")}


def test_each_difference_names_a_recorded_exchange() -> None:
    assert DIFFERENCES.keys() <= {one["name"] for one in EXCHANGES}
    assert len({one["name"] for one in EXCHANGES}) == len(EXCHANGES)


@pytest.mark.parametrize("row", sorted({REQUEST_ID, *(one.row for one in DIFFERENCES.values())}))
def test_each_difference_has_one_row_in_the_document(row: str) -> None:
    assert documented_rows().count(row) == 1


def test_the_document_has_no_duplicate_rows() -> None:
    rows = documented_rows()
    assert len(rows) > 20
    assert len(set(rows)) == len(rows)
