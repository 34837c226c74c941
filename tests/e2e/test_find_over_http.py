"""Filters, pages, and time bounds of finds over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from spincycle_grpc.state import State
from tests.e2e.processes import running
from tests.e2e.waiting import wait_state
from tests.limits import ANSWER

PATH = "/api/v1/requests"
MADE = 12


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    directory = tmp_path_factory.mktemp("server")
    with running("server", "--http=127.0.0.1:0", directory=directory) as server:
        server.wait_for("runner reports")
        base = f"http://{server.address('request-manager', 'http')}"
        with httpx.Client(base_url=base, timeout=ANSWER) as client:
            yield client


@pytest.fixture(scope="module")
def made(http: httpx.Client) -> list[dict[str, Any]]:
    """Finished requests, newest first. Every third is a diamond, the others are naps."""
    ids = []
    for number in range(MADE):
        body = {"type": "nap", "args": {"ms": str(number % 4)}} if number % 3 else {"type": "diamond"}
        ids.append(http.post(PATH, json=body).json()["id"])
    ended = [wait_state(http, request_id, State.COMPLETE) for request_id in ids]
    return sorted(ended, key=lambda one: (-_nanoseconds(one["createdAt"]), one["id"]))


def _nanoseconds(time: str) -> int:
    timestamp = Timestamp()
    timestamp.FromJsonString(time)
    return timestamp.ToNanoseconds()


def ids_of(requests: list[dict[str, Any]]) -> list[str]:
    return [request["id"] for request in requests]


def found(http: httpx.Client, query: str) -> list[str]:
    answer = http.get(f"{PATH}?{query}")
    assert answer.status_code == 200, answer.text
    return ids_of(answer.json())


def test_limit_and_offset_select_a_page(http: httpx.Client, made: list[dict[str, Any]]) -> None:
    ids = ids_of(made)
    assert found(http, "") == ids
    assert found(http, "limit=5") == ids[:5]
    assert found(http, "limit=5&offset=10") == ids[10:]
    assert found(http, "limit=5&offset=12") == []
    assert found(http, "offset=5") == ids
    assert found(http, "limit=0&offset=5") == ids
    assert found(http, "limit=&offset=") == ids
    assert found(http, "limit=5&limit=1&offset=0&offset=3") == ids[:5]
    assert found(http, "limit=18446744073709551615&offset=1") == ids[1:]
    assert found(http, "limit=1&limit=3") == ids[:1]


def test_filters_are_case_sensitive_and_combine(http: httpx.Client, made: list[dict[str, Any]]) -> None:
    naps = ids_of([request for request in made if request["type"] == "nap"])
    assert found(http, "type=nap") == naps
    assert found(http, "type=NAP") == []
    assert found(http, "Type=nap") == ids_of(made)
    assert found(http, "type=nap&limit=2&offset=1") == naps[1:3]
    assert found(http, "state=FAIL") == []
    assert found(http, "state=FAIL&state=COMPLETE&state=COMPLETE") == ids_of(made)
    assert found(http, "user=") == ids_of(made)
    assert found(http, "user=finch") == []
    assert found(http, "nosuch=1") == ids_of(made)
    threes = [request for request in made if request["type"] == "nap" and _ms(http, request) == "1"]
    assert found(http, "arg=ms=1") == ids_of(threes) != []
    assert found(http, "arg=ms=1&arg=ms=2") == []
    assert found(http, "arg=MS=1") == []
    assert found(http, "arg=ms%3D1&type=nap&state=COMPLETE&limit=1") == ids_of(threes)[:1]


def _ms(http: httpx.Client, request: dict[str, Any]) -> str:
    [value] = [
        arg["Value"] for arg in http.get(f"{PATH}/{request['id']}").json()["args"] if arg["Name"] == "ms"
    ]
    return str(value)


def test_since_and_until_compare_microseconds_in_any_zone(
    http: httpx.Client, made: list[dict[str, Any]]
) -> None:
    """A request matches if it finished after `since` or has not finished, and was created before `until`."""
    for index in (0, 5, MADE - 1):
        created, finished = made[index]["createdAt"], made[index]["finishedAt"]
        before = [one for one in made if _nanoseconds(one["createdAt"]) < _nanoseconds(created)]
        at_last = [one for one in made if _nanoseconds(one["createdAt"]) <= _nanoseconds(created)]
        after = [one for one in made if _nanoseconds(one["finishedAt"]) > _nanoseconds(finished)]
        assert found(http, f"until={created}") == ids_of(before)
        assert found(http, f"until={_moved(created, '001')}") == ids_of(at_last)
        assert found(http, f"since={finished}") == ids_of(after)
        assert found(http, f"since={_moved(finished, '999')}") == ids_of(after)
        naps = ids_of([one for one in after if one["type"] == "nap"])
        assert found(http, f"since={finished}&type=nap&limit=50") == naps
    everything = ids_of(made)
    assert found(http, "since=2000-01-01T00:00:00Z&until=2100-01-01T00:00:00.5Z") == everything
    assert found(http, "since=2100-01-01T00:00:00Z") == []
    assert found(http, "until=0001-01-01T00:00:00Z") == []
    assert found(http, "since=9999-12-31T23:59:59.999999999Z") == []
    assert found(http, "until=2100-01-01T00:00:00%2B02:00") == everything
    assert found(http, "until=2100-01-01T00:00:00+02:00") == everything


def _moved(time: str, nanoseconds: str) -> str:
    """Returns a time in microseconds with three more digits for nanoseconds."""
    whole, _, fraction = time.rstrip("Z").partition(".")
    return f"{whole}.{fraction.ljust(6, '0')}{nanoseconds}Z"


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("state=complete", "invalid 'state' parameter: \"complete\" is not a valid state name"),
        ("state=3", "invalid 'state' parameter"),
        ("state=COMPLETE&state=nosuch", "invalid 'state' parameter"),
        ("state=STATE_FAIL", "invalid 'state' parameter"),
        ("since=yesterday", "invalid 'since' parameter: \"yesterday\" cannot be parsed"),
        ("until=2026-13-01T00:00:00Z", "invalid 'until' parameter"),
        ("until=2026-11-24", "invalid 'until' parameter"),
        ("since=10000-01-01T00:00:00Z", "invalid 'since' parameter"),
        ("limit=-1", "invalid 'limit' parameter: \"-1\" cannot be parsed to uint"),
        ("limit=1&offset=-1", "invalid 'offset' parameter"),
        ("offset=-1", "invalid 'offset' parameter"),
        ("limit=ten", "invalid 'limit' parameter"),
        ("limit=1.5", "invalid 'limit' parameter"),
        ("limit=18446744073709551616", "invalid 'limit' parameter"),
        ("limit=%D9%A3", "invalid 'limit' parameter"),
        ("arg=ms", "invalid 'arg' parameter"),
        ("arg=%3D1", "invalid 'arg' parameter"),
    ],
)
def test_an_invalid_parameter_is_refused_by_name(http: httpx.Client, query: str, message: str) -> None:
    answer = http.get(f"{PATH}?{query}")
    assert answer.status_code == 400
    assert message in answer.json()["message"]
    assert answer.json()["httpStatus"] == 400
