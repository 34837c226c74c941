"""All recorded requests, run by real servers, get the original's answers, final states, and job logs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from spincycle_grpc.state import State
from tests.e2e.processes import running
from tests.e2e.waiting import wait_state
from tests.limits import ANSWER
from tests.reference.recordings import CASES, log_multiset, without_ids_and_times

RUN = [case for case in CASES if case.get("request")]
REFUSED = [case for case in CASES if not case.get("request") and "'noop'" not in case["response"]["message"]]


def name_of(case: dict[str, Any]) -> str:
    return f"{case['create']['type']} {json.dumps(case['create'].get('args'))}"[:60]


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with running("server", "--http=127.0.0.1:0", directory=tmp_path_factory.mktemp("recorded")) as server:
        server.wait_for("runner reports")
        address = server.address("request-manager", "http")
        with httpx.Client(base_url=f"http://{address}", timeout=ANSWER) as client:
            yield client


@pytest.mark.parametrize("case", RUN, ids=name_of)
def test_a_request_ends_as_recorded(http: httpx.Client, case: dict[str, Any]) -> None:
    created = http.post("/api/v1/requests", json=case["create"])
    assert created.status_code == case["status"]
    assert without_ids_and_times(created.json()) == without_ids_and_times(case["response"])
    request_id = created.json()["id"]
    ended = wait_state(http, request_id, State.COMPLETE, State.FAIL, State.STOPPED)
    recorded = case["request"]
    for field in ("state", "args", "totalJobs", "finishedJobs"):
        assert ended.get(field) == recorded.get(field), field
    log = http.get(f"/api/v1/requests/{request_id}/log").json()
    assert log_multiset(log) == log_multiset(case["job_log"])


@pytest.mark.parametrize("case", REFUSED, ids=name_of)
def test_an_invalid_request_is_refused_with_the_recorded_message_and_status_400(
    http: httpx.Client, case: dict[str, Any]
) -> None:
    refused = http.post("/api/v1/requests", json=case["create"])
    assert refused.status_code == 400
    assert refused.json() == {"message": case["response"]["message"], "requestId": "", "httpStatus": 400}
