"""The trace of a call reaches the jobs of the request that it creates, and the log."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from spincycle_grpc import Client, State, TraceContext
from tests.e2e.processes import ServerProcess, running
from tests.e2e.waiting import wait_state
from tests.limits import COMMAND

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
TRACE = TraceContext(TRACE_ID, "b7ad6b7169203331", 1, "rojo=1,congo=2")
OTHER = TraceContext("1" * 32, "2" * 16, 0)
SPECS = """
sequences:
  show:
    request: true
    args:
      static: [{{name: cmd, default: "{directory}/show"}}]
    nodes:
      show: {{category: job, type: shell-command, args: [{{expected: cmd, given: cmd}}]}}
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("traces")
    (directory / "specs").mkdir()
    (directory / "specs" / "show.yaml").write_text(SPECS.format(directory=directory))
    script = directory / "show"
    script.write_text(
        f'#!/bin/sh\necho "${{TRACEPARENT-none}} ${{TRACESTATE-none}}"\ntest -e {directory}/good\n'
    )
    script.chmod(0o755)
    return directory


@pytest.fixture(scope="module")
def server(directory: Path) -> Iterator[ServerProcess]:
    environment = {"SPINCYCLE_SPECS_DIR": "specs", "TRACEPARENT": OTHER.traceparent, "TRACESTATE": "own=1"}
    with running("server", "--http", "127.0.0.1:0", directory=directory, environment=environment) as server:
        yield server


def shown(http: httpx.Client, request_id: str) -> str:
    """Returns what the job of a request has printed, which fails because it has no leave to be good."""
    wait_state(http, request_id, State.FAIL)
    entries: list[dict[str, Any]] = http.get(f"/api/v1/requests/{request_id}/log").json()
    return "".join(entry["stdout"] for entry in entries).strip()


def created(http: httpx.Client, *headers: tuple[str, str]) -> dict[str, Any]:
    response = http.post("/api/v1/requests", json={"type": "show", "args": {}}, headers=list(headers))
    assert response.status_code == 201
    request: dict[str, Any] = response.json()
    return request


def test_a_job_gets_the_trace_of_the_call_over_http(server: ServerProcess, http: httpx.Client) -> None:
    traceparent, tracestate = TRACE.headers()
    request = created(http, traceparent, ("tracestate", "rojo=1"), ("tracestate", "congo=2"))
    assert tracestate == ("tracestate", TRACE.state)
    assert request["traceId"] == TRACE_ID
    assert shown(http, request["id"]) == f"{TRACE.traceparent} {TRACE.state}"
    found = wait_state(http, request["id"], State.FAIL)
    assert found["traceId"] == TRACE_ID
    assert found["JobChain"]["traceparent"] == TRACE.traceparent
    for message in ("request created", "try failed", "chain ended"):
        line = server.wait_for(message, request_id=request["id"])
        assert (line["trace_id"], line["span_id"]) == (TRACE_ID, TRACE.span_id)


def test_a_retry_belongs_to_the_trace_of_its_own_call(
    server: ServerProcess, http: httpx.Client, directory: Path
) -> None:
    grpc_address = server.address("request-manager", "grpc")
    with Client(grpc_address, trace=TRACE) as client, Client(grpc_address, trace=OTHER) as other:
        first = client.create("show")
        assert shown(http, first.id) == f"{TRACE.traceparent} {TRACE.state}"
        second = other.retry(first.id)
        assert second.trace_id == OTHER.trace_id
        assert shown(http, second.id) == f"{OTHER.traceparent} none"
        with Client(grpc_address) as untraced:
            third = untraced.retry(second.id)
        assert shown(http, third.id) == "none none"
        assert "traceId" not in http.get(f"/api/v1/requests/{third.id}").json()
        assert (client.get(first.id).trace_id, client.get(second.id).trace_id) == (TRACE_ID, OTHER.trace_id)


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (("traceparent", "00-malformed"), ("tracestate", "rojo=1")),
        (("traceparent", TRACE.traceparent), ("traceparent", OTHER.traceparent)),
    ],
)
def test_a_call_without_one_valid_traceparent_belongs_to_no_trace(
    http: httpx.Client, headers: tuple[tuple[str, str], ...]
) -> None:
    request = created(http, *headers)
    assert "traceId" not in request
    assert shown(http, request["id"]) == "none none"
    assert "traceparent" not in http.get(f"/api/v1/requests/{request['id']}").json()["JobChain"]


def test_spinc_passes_on_the_trace_of_its_environment(
    server: ServerProcess, http: httpx.Client, tmp_path: Path
) -> None:
    environment = {**os.environ, **TRACE.variables(), "XDG_CONFIG_HOME": str(tmp_path)}
    spinc = [sys.executable, "-m", "spincycle_grpc.cli", "--addr", server.address("request-manager", "grpc")]
    command = [*spinc, "start", "show"]
    started = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=COMMAND, check=True
    )
    request_id = started.stdout.split()[0]
    assert shown(http, request_id) == f"{TRACE.traceparent} {TRACE.state}"
    status = subprocess.run(
        [*spinc, "status", request_id], capture_output=True, text=True, timeout=COMMAND, check=True
    )
    assert TRACE_ID in status.stdout
