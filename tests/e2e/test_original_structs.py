"""The JSON of real servers has exactly the keys of the original's structs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from spincycle_grpc.state import State
from tests.e2e.processes import ServerProcess, running
from tests.e2e.waiting import eventually, wait_state
from tests.limits import ANSWER
from tests.reference.structs import FILTERS, MESSAGES, STRUCTS, Field

NEVER_SET = {("Job", "data")}
"""The fields that are empty in each answer: a job chain is shown as created, before jobs have data."""

SPECS = """
sequences:
  all-fields:
    request: true
    args: {optional: [{name: ms, default: "3600000"}], static: [{name: wait, default: "1"}]}
    nodes:
      nap: {category: job, type: sleep, args: [{expected: duration, given: ms}], retry: 1, retryWait: 1s}
      part:
        category: sequence
        type: part
        args: [{expected: ms, given: wait}]
        retry: 1
        retryWait: 1s
        deps: []
  part:
    args: {required: [{name: ms}]}
    nodes: {nap: {category: job, type: sleep, args: [{expected: duration, given: ms}]}}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    directory = tmp_path_factory.mktemp("structs")
    (directory / "specs").mkdir()
    (directory / "specs" / "all.yaml").write_text(SPECS)
    environment = {"SPINCYCLE_SPECS_DIR": "specs", "SPINCYCLE_CLUSTER_OPEN": "true"}
    with running("server", "--http=127.0.0.1:0", directory=directory, environment=environment) as server:
        server.wait_for("reporting")
        yield server


@pytest.fixture(scope="module")
def answers(server: ServerProcess) -> dict[str, list[dict[str, Any]]]:
    """Objects from answers by struct, of a request that runs."""
    manager, runner = (
        httpx.Client(base_url=f"http://{server.address(name, 'http')}/api/v1", timeout=ANSWER)
        for name in ("request-manager", "job-runner")
    )
    with manager, runner:
        created = manager.post("/requests", json={"type": "all-fields"}).json()
        url = f"/requests/{created['id']}"
        with httpx.Client(base_url=f"http://{server.address('request-manager', 'http')}") as root:
            request = wait_state(root, created["id"], State.RUNNING)
        log = eventually(lambda: [one for one in manager.get(f"{url}/log").json() if one["type"] == "sleep"])
        status = eventually(lambda: (found := manager.get("/status/running").json())["jobs"] and found)
        chain = manager.get(f"{url}/job-chain").json()
        specs = manager.get("/request-list").json()
        requests = [created, request, *manager.get("/requests").json(), *status["requests"].values()]
        return {
            "Error": [manager.get("/requests/nosuch").json()],
            "Job": list(chain["jobs"].values()) + list(request["JobChain"]["jobs"].values()),
            "JobChain": [chain, request["JobChain"]],
            "JobLog": [*log, manager.get(f"{url}/log/{log[0]['jobId']}").json()],
            "JobStatus": status["jobs"] + runner.get("/status/running").json(),
            "Request": requests,
            "RequestArg": created["args"] + [arg for spec in specs for arg in spec["Args"]],
            "RequestSpec": specs,
            "RunningStatus": [status],
        }


RECEIVED_ONLY = {"CreateRequest", "FinishRequest", "RequestProgress", "SuspendedJobChain"}
ANSWERED = sorted(STRUCTS.keys() - FILTERS - RECEIVED_ONLY)


@pytest.mark.parametrize("struct", ANSWERED)
def test_an_answer_has_the_keys_of_the_original_in_its_order(
    answers: dict[str, list[dict[str, Any]]], struct: str
) -> None:
    keys = [field.key for field in STRUCTS[struct]]
    always = {field.key for field in STRUCTS[struct] if not field.omitempty}
    own_keys = {field.json_name for field in MESSAGES[struct].fields} - set(keys)
    assert answers[struct]
    for found in answers[struct]:
        originals = [key for key in found if key not in own_keys]
        assert always <= set(originals) <= set(keys)
        assert originals == [key for key in keys if key in found]
        assert all(found[key] for key in set(originals) - always), "an empty field is left out"


@pytest.mark.parametrize("struct", ANSWERED)
def test_each_field_that_may_be_left_out_is_seen_with_and_without_a_value(
    answers: dict[str, list[dict[str, Any]]], struct: str
) -> None:
    for field in STRUCTS[struct]:
        if field.omitempty:
            seen = {field.key in found for found in answers[struct]}
            expected = {False} if (struct, field.key) in NEVER_SET else {True, False}
            if struct == "JobStatus":
                expected = {True}  # Each running job of this request has a status.
            assert seen == expected, field


RECEIVED = {
    "CreateRequest": ("request-manager", "POST", "/requests", ()),
    "FinishRequest": ("request-manager", "PUT", "/requests/nosuch/finish", ()),
    "RequestProgress": ("request-manager", "PUT", "/requests/nosuch/progress", ()),
    "JobLog": ("request-manager", "POST", "/requests/nosuch/log", ()),
    "SuspendedJobChain": ("request-manager", "PUT", "/requests/nosuch/suspend", ()),
    "JobChain": ("job-runner", "POST", "/job-chains", ()),
    "Job": ("job-runner", "POST", "/job-chains", ("jobs", "aaaa")),
}
"""The structs of bodies: the server, the method, the route, and where in the body the struct is."""


@pytest.mark.parametrize(
    ("struct", "field"),
    [(struct, field) for struct in RECEIVED for field in STRUCTS[struct]],
    ids=lambda part: part.name if isinstance(part, Field) else part,
)
def test_a_body_is_read_by_the_keys_of_the_original(server: ServerProcess, struct: str, field: Field) -> None:
    wrong_type, ignored = (refusal(server, struct, {key: [[]]}) for key in (field.key, "surplus"))
    assert wrong_type.status_code == 400
    assert field.key in wrong_type.json()["message"], "the message names the field of the wrong type"
    assert "surplus" not in ignored.text


def refusal(server: ServerProcess, struct: str, value: dict[str, Any]) -> httpx.Response:
    """Sends a body that contains the struct with this value."""
    name, method, route, path = RECEIVED[struct]
    body: Any = value
    for key in reversed(path):
        body = {key: body}
    url = f"http://{server.address(name, 'http')}/api/v1{route}"
    return httpx.request(method, url, json=body, timeout=ANSWER)


FILTERED = {
    "RequestFilter": ("/requests", {"Limit": "1", "Offset": "x", "Since": "x", "Until": "x", "States": "x"}),
    "StatusFilter": ("/status/running", {"OrderBy": "x"}),
}
"""By filter: the route, and values that change its answer. The other parameters are names."""


@pytest.mark.parametrize(
    ("struct", "field"),
    [(struct, field) for struct in FILTERED for field in STRUCTS[struct]],
    ids=lambda part: part.name if isinstance(part, Field) else part,
)
def test_a_filter_is_read_by_the_parameters_of_the_original(
    server: ServerProcess, answers: dict[str, list[dict[str, Any]]], struct: str, field: Field
) -> None:
    route, values = FILTERED[struct]
    url = f"http://{server.address('request-manager', 'http')}/api/v1{route}"
    value = values.get(field.name, "nosuch")
    filtered = httpx.get(url, params={field.param: value}, timeout=ANSWER)
    ignored = httpx.get(url, params={"nosuch": value}, timeout=ANSWER)
    assert ignored.status_code == 200
    assert filtered.status_code == 400 or filtered.json() != ignored.json() or value == "1", filtered.text
