"""Who may call which method and route of real servers: a table with a row for each method.

Each row has one sign per caller:

- `+` the caller is let in, and gets the method's own answer;
- `-` the caller is unknown: UNAUTHENTICATED, 401;
- `x` the caller is known and denied: PERMISSION_DENIED, 401 on the original's routes, 403 on new ones.
"""

from __future__ import annotations

import contextlib
import json
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import httpx
import pytest
import trustme
from google.api import annotations_pb2
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.json_format import ParseDict
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from spincycle_grpc.state import State
from spincycle_grpc.v1 import job_runner_pb2, json_pb2, request_manager_pb2, runner_reports_pb2
from spincycle_server.identity.cluster import KEY_HEADER
from tests.certificates import Files, write_ca, write_certificate
from tests.commands.in_process import spincycle
from tests.e2e.processes import ServerProcess, running
from tests.e2e.waiting import eventually
from tests.limits import ANSWER

CALLERS = (
    "anonymous",
    "unknown token",
    "user without role",
    "user with role",
    "foreign certificate",
    "server",
)
SERVICES = {
    "RequestManager": ("request-manager", request_manager_pb2.DESCRIPTOR.services_by_name["RequestManager"]),
    "RunnerReports": ("request-manager", runner_reports_pb2.DESCRIPTOR.services_by_name["RunnerReports"]),
    "JobRunner": ("job-runner", job_runner_pb2.DESCRIPTOR.services_by_name["JobRunner"]),
}
METHODS: dict[str, MethodDescriptor] = {
    f"{name}.{method.name}": method for name, (_, service) in SERVICES.items() for method in service.methods
}


@dataclass(frozen=True)
class Row:
    """What callers get.

    Attributes:
        signs: One sign per caller, in the order of CALLERS.
        code: The gRPC code of those who are let in.
        status: Their HTTP status; 0 if the method has no route.
        request: The request as ProtoJSON. ID stands for the id of a request of the type "guarded".
        body: The body over HTTP.
    """

    signs: str
    code: str
    status: int
    request: dict[str, Any] = field(default_factory=dict)
    body: Any = None


ID = "ID"
ONE = {"requestId": ID}
NEW = {"type": "guarded"}
RUNNER = {"runnerId": "0" * 20, "url": "http://127.0.0.1:9", "grpcAddress": "127.0.0.1:9"}
LAST_REPORT = {"number": 1, "runner": RUNNER, "leaving": True}
OTHERS = {"requestId": "other"}
FROM = {"from": "zzzz"}
BAD_FROM = {"requestId": ID, **FROM}
NO_SUCH_JOB = {"requestId": ID, "jobId": "zzzz"}
NO_OUTCOME = {"outcome": {"requestId": "nosuch"}}
PROGRESS = {"requestId": ID, "progress": {"requestId": ID}}

# fmt: off
TABLE = {
    # anonymous, unknown token, user without role, user with role, foreign certificate, server
    "RequestManager.Version":         Row("+ + + + + +", "OK", 200),
    "RequestManager.Find":            Row("- - + + + +", "OK", 200),
    "RequestManager.Get":             Row("- - + + + +", "OK", 200, ONE),
    "RequestManager.GetJobChain":     Row("- - + + + +", "OK", 200, ONE),
    "RequestManager.GetJobLog":       Row("- - + + + +", "NOT_FOUND", 404, NO_SUCH_JOB),
    "RequestManager.GetLog":          Row("- - + + + +", "OK", 200, ONE),
    "RequestManager.RequestList":     Row("- - + + + +", "OK", 200),
    "RequestManager.Running":         Row("- - + + + +", "OK", 200),
    "RequestManager.FollowOutput":    Row("- - + + + +", "NOT_FOUND", 404, NO_SUCH_JOB),
    "RequestManager.Watch":           Row("- - + + + +", "OK", 0, ONE),
    "RequestManager.Create":          Row("- - x + x -", "OK", 201, NEW, NEW),
    "RequestManager.Plan":            Row("- - x + x -", "OK", 200, NEW, NEW),
    "RequestManager.Retry":           Row("- - x + x -", "INVALID_ARGUMENT", 400, BAD_FROM, FROM),
    "RequestManager.Start":           Row("- - x + x -", "FAILED_PRECONDITION", 409, ONE),
    "RequestManager.Stop":            Row("- - x + x -", "OK", 200, ONE),
    "RequestManager.Pause":           Row("- - x + x -", "FAILED_PRECONDITION", 409, ONE),
    "RequestManager.Resume":          Row("- - x + x -", "FAILED_PRECONDITION", 409, ONE),
    "RequestManager.Approve":         Row("- - + + + -", "FAILED_PRECONDITION", 409, ONE, {}),
    "RequestManager.Reject":          Row("- - + + + -", "FAILED_PRECONDITION", 409, ONE, {}),
    "RequestManager.ListApprovals":   Row("- - + + + -", "OK", 200),
    "RequestManager.ListDeliveries":  Row("- - x x x -", "", 0),
    "RequestManager.Redeliver":       Row("- - x x x -", "", 0),
    "RequestManager.SendTestNotification": Row("- - x x x -", "", 0),
    "RequestManager.ListAuditEvents": Row("- - x x x -", "", 0),
    "RequestManager.CountRequests":   Row("- - + + + +", "OK", 200),
    "RequestManager.ListRunners":     Row("- - + + + +", "OK", 200),
    "RequestManager.ListLimits":      Row("- - + + + +", "OK", 200),
    "RequestManager.GetConfiguration": Row("- - x x x -", "", 0),
    "RequestManager.GetCaller":       Row("- - + + + -", "OK", 200),
    "RunnerReports.Report":           Row("- - x x x +", "OK", 0, LAST_REPORT),
    "RunnerReports.Finish":           Row("- - x x x +", "INVALID_ARGUMENT", 400, ONE, {"state": 2}),
    "RunnerReports.Suspend":          Row("- - x x x +", "INVALID_ARGUMENT", 400, ONE, OTHERS),
    "RunnerReports.Progress":         Row("- - x x x +", "OK", 200, PROGRESS, {"requestId": ID}),
    "RunnerReports.RecordLog":        Row("- - x x x +", "INVALID_ARGUMENT", 400, ONE, {"jobId": "?"}),
    # A Job Runner has no database, so it knows users by their certificates, and no tokens.
    "JobRunner.Version":              Row("+ + + + + +", "OK", 200),
    "JobRunner.RunningJobs":          Row("- - - - + +", "OK", 200),
    "JobRunner.FollowOutput":         Row("- - - - x +", "NOT_FOUND", 0, NO_SUCH_JOB),
    "JobRunner.NewJobChain":          Row("- - - - x +", "INVALID_ARGUMENT", 400, {}, {}),
    "JobRunner.ResumeJobChain":       Row("- - - - x +", "INVALID_ARGUMENT", 400, {}, {}),
    "JobRunner.StartJobChains":       Row("- - - - x +", "OK", 0),
    "JobRunner.StopJobChain":         Row("- - - - x +", "NOT_FOUND", 404, {"requestId": "nosuch"}),
    "JobRunner.PauseJobChain":        Row("- - - - x +", "NOT_FOUND", 0, {"requestId": "nosuch"}),
    "JobRunner.UnpauseJobChain":      Row("- - - - x +", "NOT_FOUND", 0, {"requestId": "nosuch"}),
    "JobRunner.EndApproval":          Row("- - - - x +", "NOT_FOUND", 0, NO_OUTCOME),
    "JobRunner.WatchCapacity":        Row("- - - - x +", "OK", 0),
    "JobRunner.EndLimitWait":         Row("- - - - x +", "NOT_FOUND", 0, NO_OUTCOME),
}
# fmt: on

SPECS = """
sequences:
  guarded:
    request: true
    acl: [{role: operator, ops: [start, stop, pause]}]
    nodes: {n: {category: job, type: sleep, args: [{expected: duration, given: duration}]}}
    args: {optional: [{name: duration, desc: "milliseconds", default: "1"}]}
"""

Call: TypeAlias = Callable[[str], str]


class Doors:
    """Two separate servers whose users have tokens or certificates, and how each caller reaches them."""

    def __init__(self, directory: Path, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._directory = directory
        self._ca = trustme.CA()
        self._ca_file = write_ca(directory, self._ca)
        self._key = "k" * 40
        (directory / "cluster.key").write_text(self._key)
        (directory / "specs").mkdir()
        (directory / "specs" / "guarded.yaml").write_text(SPECS)
        self._files = {name: self._issue(name) for name in ("manager", "runner", "mallory")}
        manager = self._start("request-manager", "manager")
        rm = manager.wait_for("listening for servers")["grpc"]
        runner = self._start("job-runner", "runner", f"--rm={rm}")
        self.servers = {"request-manager": manager, "job-runner": runner}
        runner.wait_for("reporting")
        self._tokens = {
            "unknown token": "spincycle_" + "x" * 43,
            "user without role": self._token("finch"),
            "user with role": self._token("raven", "--role=operator"),
        }

    def _issue(self, name: str) -> Files:
        leaf = self._ca.issue_cert("127.0.0.1", common_name=name)
        return write_certificate(self._directory, name, leaf)

    def _start(self, command: str, name: str, *arguments: str) -> ServerProcess:
        own = self._files[name]
        tls = {"cert_file": own.cert, "key_file": own.key, "ca_file": self._ca_file}
        options = {
            "server": {"tls": {**tls, "client_auth": "request", "grpc_client_auth": "none"}},
            "rm_client": {"tls": tls},
            "jr_client": {"tls": tls},
            "auth": {"methods": "token,certificate", "strict": True, "admin_roles": "boss"},
            "cluster": {
                "key_file": str(self._directory / "cluster.key"),
                "certificates": ["manager", "runner"],
                "listen": "127.0.0.1:0",
            },
        }
        file = self._directory / f"{name}.json.yaml"
        file.write_text(json.dumps(options))
        environment = {"SPINCYCLE_SPECS_DIR": "specs"}
        return self._stack.enter_context(
            running(
                command, str(file), "--http=127.0.0.1:0", *arguments,
                directory=self._directory, environment=environment,
            )
        )  # fmt: skip

    def _token(self, name: str, *roles: str) -> str:
        url = f"--db=sqlite:///{self._directory}/spincycle.db"
        done = spincycle(self._directory, "token", "create", name, url, *roles)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def headers(self, caller: str) -> dict[str, str]:
        token = self._tokens.get(caller)
        return {"authorization": f"Bearer {token}"} if token else {}

    def http(self, caller: str, server: str) -> httpx.Client:
        context = ssl.create_default_context(cadata=self._ca.cert_pem.bytes().decode())
        files = self._certificate(caller)
        if files is not None:
            context.load_cert_chain(files.cert, files.key)
        return self._stack.enter_context(
            httpx.Client(
                base_url=f"https://{self.servers[server].address(server, 'http')}",
                verify=context, timeout=ANSWER, headers=self.headers(caller),
            )
        )  # fmt: skip

    def _certificate(self, caller: str) -> Files | None:
        return self._files.get({"foreign certificate": "mallory", "server": "manager"}.get(caller, ""))

    def channel(self, caller: str, server: str, *, for_servers: bool = False) -> grpc.Channel:
        """Returns a channel to the address for all, or with a certificate to the address for servers."""
        process = self.servers[server]
        files = self._certificate(caller) if for_servers else None
        credentials = grpc.ssl_channel_credentials(
            self._ca.cert_pem.bytes(),
            None if files is None else Path(files.key).read_bytes(),
            None if files is None else Path(files.cert).read_bytes(),
        )
        address = (
            process.wait_for("listening for servers")["grpc"]
            if for_servers
            else process.address(server, "grpc")
        )
        return self._stack.enter_context(contextlib.closing(grpc.secure_channel(address, credentials)))

    def metadata(self, caller: str) -> tuple[tuple[str, str], ...]:
        """Returns the metadata of a caller who has no certificate: the key for a server."""
        if caller == "server":
            return ((KEY_HEADER, self._key),)
        return tuple(self.headers(caller).items())


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    with contextlib.ExitStack() as stack:
        yield Doors(tmp_path_factory.mktemp("doors"), stack)


@pytest.fixture(scope="module")
def request_id(doors: Doors) -> str:
    """A request of the guarded type that was stopped."""
    http = doors.http("user with role", "request-manager")
    created = http.post("/api/v1/requests", json={**NEW, "args": {"duration": "3600000"}})
    assert created.status_code == 201, created.text
    made = str(created.json()["id"])
    assert http.put(f"/api/v1/requests/{made}/stop").status_code == 200
    eventually(lambda: http.get(f"/api/v1/requests/{made}").json()["state"] == State.STOPPED)
    return made


def with_id(value: Any, request_id: str) -> Any:
    return json.loads(json.dumps(value).replace(f'"{ID}"', f'"{request_id}"'))


def sign(name: str, caller: str) -> str:
    return TABLE[name].signs.split()[CALLERS.index(caller)]


def test_every_method_has_a_row_with_a_sign_for_every_caller() -> None:
    assert TABLE.keys() == METHODS.keys()
    for row in TABLE.values():
        signs = row.signs.split()
        assert len(signs) == len(CALLERS)
        assert set(signs) <= {"+", "-", "x"}


def grpc_code(
    method: MethodDescriptor, channel: grpc.Channel, metadata: tuple[tuple[str, str], ...], request: Any
) -> str:
    """Returns the code with which a method answers."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    message = ParseDict(request, GetMessageClass(method.input_type)())
    read = GetMessageClass(method.output_type).FromString
    try:
        if method.client_streaming:
            stream = channel.stream_stream(path, type(message).SerializeToString, read)
            next(stream(iter([message]), metadata=metadata, timeout=ANSWER))
        elif method.server_streaming:
            answers = channel.unary_stream(path, type(message).SerializeToString, read)
            next(answers(message, metadata=metadata, timeout=ANSWER))
        else:
            unary = channel.unary_unary(path, type(message).SerializeToString, read)
            unary(message, metadata=metadata, timeout=ANSWER)
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


@pytest.mark.parametrize("caller", [caller for caller in CALLERS if caller != "foreign certificate"])
@pytest.mark.parametrize("name", METHODS)
def test_grpc_lets_in_whom_the_table_lets_in(doors: Doors, request_id: str, name: str, caller: str) -> None:
    server, _ = SERVICES[name.partition(".")[0]]
    request = with_id(TABLE[name].request, request_id)
    code = grpc_code(METHODS[name], doors.channel(caller, server), doors.metadata(caller), request)
    assert (
        code == {"+": TABLE[name].code, "-": "UNAUTHENTICATED", "x": "PERMISSION_DENIED"}[sign(name, caller)]
    )


@pytest.mark.parametrize("caller", ["foreign certificate", "server"])
@pytest.mark.parametrize("name", METHODS)
def test_the_address_for_servers_lets_in_servers_alone(
    doors: Doors, request_id: str, name: str, caller: str
) -> None:
    server, _ = SERVICES[name.partition(".")[0]]
    request = with_id(TABLE[name].request, request_id)
    channel = doors.channel(caller, server, for_servers=True)
    is_for_servers = name == "JobRunner.RunningJobs" or TABLE[name].signs.endswith("x +")
    expected = "UNIMPLEMENTED"
    if is_for_servers:
        expected = TABLE[name].code if caller == "server" else "PERMISSION_DENIED"
    assert grpc_code(METHODS[name], channel, (), request) == expected


ROUTED = [
    name
    for name, method in METHODS.items()
    if method.GetOptions().HasExtension(annotations_pb2.http)
    and (TABLE[name].status or not method.server_streaming)
]


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("name", ROUTED)
def test_http_lets_in_whom_the_table_lets_in(doors: Doors, request_id: str, name: str, caller: str) -> None:
    row, options = TABLE[name], METHODS[name].GetOptions()
    rule = options.Extensions[annotations_pb2.http]
    assert not rule.additional_bindings, "test the further routes too"
    http_method = rule.WhichOneof("pattern")
    path = getattr(rule, http_method)
    for variable in ("requestId", "jobId"):
        snake = "request_id" if variable == "requestId" else "job_id"
        path = path.replace(f"{{{snake}}}", with_id(row.request, request_id).get(variable, ""))
    server, _ = SERVICES[name.partition(".")[0]]
    body = None if row.body is None else with_id(row.body, request_id)
    answer = doors.http(caller, server).request(http_method.upper(), path, json=body)
    denied = options.Extensions[json_pb2.http_answer].denied_status or 401
    found = sign(name, caller)
    assert answer.status_code == {"+": row.status, "-": 401, "x": denied}[found], answer.text
    assert ("www-authenticate" in answer.headers) == (answer.status_code == 401)


@pytest.mark.parametrize("server", ["request-manager", "job-runner"])
@pytest.mark.parametrize("caller", CALLERS)
def test_the_openapi_document_is_public(doors: Doors, server: str, caller: str) -> None:
    assert doors.http(caller, server).get("/openapi.json").status_code == 200


@pytest.mark.parametrize("server", ["request-manager", "job-runner"])
def test_no_other_services_are_served_than_those_of_the_table_health_and_reflection(
    doors: Doors, server: str
) -> None:
    channel = doors.channel("anonymous", server)
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    answer = next(stub.ServerReflectionInfo(iter([asked]), timeout=ANSWER))
    served = {service.name for service in answer.list_services_response.service}
    known = {service.full_name for name, service in SERVICES.values() if name == server}
    others = {name for name in served - known if not name.startswith("grpc.reflection.")}
    assert known <= served
    assert others == {"grpc.health.v1.Health"}
    health: Any = health_pb2_grpc.HealthStub(channel)
    checked = health.Check(health_pb2.HealthCheckRequest(), timeout=ANSWER)
    assert checked.status == health_pb2.HealthCheckResponse.SERVING
