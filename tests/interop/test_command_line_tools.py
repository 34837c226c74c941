"""grpcurl, `buf curl`, ghz and grpc-health-probe call every method of a Request Manager."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import pytest
from google.protobuf.descriptor import MethodDescriptor

from spincycle_grpc.state import State
from spincycle_grpc.v1 import request_manager_pb2
from tests.e2e.processes import REPOSITORY, ServerProcess
from tests.e2e.waiting import wait_state
from tests.interop.clients import environment
from tests.interop.go_tools import go_tool
from tests.limits import ANSWER, COMMAND

pytestmark = pytest.mark.interop

SERVICE = request_manager_pb2.DESCRIPTOR.services_by_name["RequestManager"]
METHODS: dict[str, MethodDescriptor] = {method.name: method for method in SERVICE.methods}


@dataclass(frozen=True)
class Row:
    """A call of a method.

    Attributes:
        request: The request as ProtoJSON. ID stands for the id of a request that has ended, JOB for one of
            its jobs.
        error: What the message of the error contains, for a call that must fail.
        code: The code of the error.
    """

    request: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    code: str = "FailedPrecondition"


ONE = {"requestId": "ID"}
JOB = {"requestId": "ID", "jobId": "JOB"}
NAP = {"type": "nap", "args": {"ms": "1"}}

TABLE = {
    "Approve": Row(ONE, "the server does not authenticate users"),
    "Create": Row(NAP),
    "CountRequests": Row({"filter": {"type": "nap"}}),
    "FollowOutput": Row(JOB),
    "Find": Row({"filter": {"type": "nap", "limit": 3}}),
    "Get": Row(ONE),
    "GetCaller": Row(),
    "GetConfiguration": Row(),
    "GetJobChain": Row(ONE),
    "GetJobLog": Row(JOB),
    "GetLog": Row(ONE),
    "ListApprovals": Row(),
    "ListAuditEvents": Row({}, "there is no audit log"),
    "ListDeliveries": Row(),
    "ListLimits": Row(),
    "ListRunners": Row(),
    "Pause": Row(ONE, "it has ended with the state COMPLETE"),
    "Plan": Row(NAP),
    "Redeliver": Row({"eventId": "x", "target": "ops"}, "this server has no target 'ops'", "NotFound"),
    "Reject": Row(ONE, "the server does not authenticate users"),
    "RequestList": Row(),
    "Resume": Row(ONE, "is not paused"),
    "Retry": Row(ONE, "only FAIL and STOPPED requests can be retried"),
    "Running": Row(),
    "SendTestNotification": Row({"target": "ops"}, "this server has no target 'ops'", "NotFound"),
    "Start": Row(ONE, "expected state PENDING"),
    "Stop": Row(ONE),
    "Version": Row(),
    "Watch": Row(ONE),
}

Completed: TypeAlias = subprocess.CompletedProcess[str]


def run(*command: str | Path) -> Completed:
    return subprocess.run(
        command,
        cwd=REPOSITORY,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=COMMAND,
        check=False,
    )


@pytest.fixture(scope="module")
def address(server: ServerProcess) -> str:
    return server.address("request-manager", "grpc")


@pytest.fixture(scope="module")
def ended(server: ServerProcess) -> tuple[str, str]:
    """The id of a request that has ended, and the id of one of its jobs."""
    base = f"http://{server.address('request-manager', 'http')}"
    with httpx.Client(base_url=base, timeout=ANSWER) as http:
        made = str(http.post("/api/v1/requests", json=NAP).json()["id"])
        wait_state(http, made, State.COMPLETE)
        return made, str(http.get(f"/api/v1/requests/{made}/log").json()[0]["jobId"])


def request_of(method: str, ended: tuple[str, str]) -> str:
    text = json.dumps(TABLE[method].request)
    return text.replace('"ID"', json.dumps(ended[0])).replace('"JOB"', json.dumps(ended[1]))


def assert_as_expected(done: Completed, method: str) -> None:
    error = TABLE[method].error
    if error:
        assert done.returncode != 0
        assert error in done.stdout + done.stderr
    else:
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_method_has_a_row() -> None:
    assert TABLE.keys() == METHODS.keys()


every_method = pytest.mark.parametrize("method", METHODS)


@pytest.fixture(scope="module")
def grpcurl() -> Callable[..., Completed]:
    program = go_tool("grpcurl")
    return lambda *arguments: run(program, "-plaintext", *arguments)


@every_method
def test_grpcurl_calls_a_method_by_reflection(
    grpcurl: Callable[..., Completed], address: str, ended: tuple[str, str], method: str
) -> None:
    data = request_of(method, ended)
    assert_as_expected(grpcurl("-d", data, address, f"{SERVICE.full_name}/{method}"), method)


@pytest.mark.parametrize("contracts", ["files", "descriptor set"])
def test_grpcurl_calls_a_method_by_contracts(
    grpcurl: Callable[..., Completed], address: str, contracts: str
) -> None:
    arguments = {
        "files": ("-import-path=protos", "-proto=spincycle/v1/request_manager.proto"),
        "descriptor set": ("-protoset=spincycle_grpc/v1/descriptors.binpb",),
    }[contracts]
    done = grpcurl(*arguments, address, f"{SERVICE.full_name}/Version")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"version": "1.0.12"}


def test_grpcurl_describes_services_and_methods(grpcurl: Callable[..., Completed], address: str) -> None:
    listed = grpcurl(address, "list").stdout.split()
    assert {SERVICE.full_name, "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"} <= set(listed)
    described = grpcurl(address, "describe", f"{SERVICE.full_name}.Create").stdout
    assert "// Creates a request and starts it." in described


def test_grpcurl_shows_the_reason_of_an_error(grpcurl: Callable[..., Completed], address: str) -> None:
    done = grpcurl("-d", '{"requestId": "nosuch"}', address, f"{SERVICE.full_name}/Get")
    assert "Code: NotFound" in done.stderr
    assert '"reason": "REQUEST_NOT_FOUND"' in done.stderr


@every_method
def test_buf_curl_calls_a_method(address: str, ended: tuple[str, str], method: str) -> None:
    buf = Path(sys.executable).with_name("buf")
    done = run(
        buf, "curl", "--protocol=grpc", "--http2-prior-knowledge", f"--data={request_of(method, ended)}",
        f"http://{address}/{SERVICE.full_name}/{method}",
    )  # fmt: skip
    assert_as_expected(done, method)


@pytest.mark.full
@every_method
def test_ghz_calls_a_method_by_reflection(address: str, ended: tuple[str, str], method: str) -> None:
    done = run(
        go_tool("ghz"), "--insecure", f"--call={SERVICE.full_name}/{method}",
        f"--data={request_of(method, ended)}", "--total=4", "--concurrency=2", "--format=json", address,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["count"] == 4
    if TABLE[method].error:
        assert report["statusCodeDistribution"] == {TABLE[method].code: 4}
    else:
        assert report["statusCodeDistribution"] == {"OK": 4}


@pytest.mark.full
@pytest.mark.parametrize("service", ["", SERVICE.full_name, "spincycle.v1.RunnerReports"])
def test_the_health_probe_finds_a_service_healthy(address: str, service: str) -> None:
    done = run(go_tool("grpc-health-probe"), f"-addr={address}", f"-service={service}")
    assert (done.returncode, "status: SERVING" in done.stdout + done.stderr) == (0, True), done.stderr


@pytest.mark.full
def test_the_health_probe_finds_an_unknown_service_unhealthy(address: str) -> None:
    done = run(go_tool("grpc-health-probe"), f"-addr={address}", "-service=nosuch")
    assert done.returncode == 3, "the probe exits with 3 if the service is unknown"
