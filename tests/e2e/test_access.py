"""Who may do what on real servers, over gRPC and HTTP, with a plugin that misbehaves."""

from __future__ import annotations

import contextlib
import json
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from spincycle_grpc.rpc_errors import error_from_rpc
from spincycle_grpc.structs import to_struct
from spincycle_grpc.v1 import request_manager_pb2 as messages
from spincycle_grpc.v1 import runner_reports_pb2
from spincycle_grpc.v1.request_manager_pb2_grpc import RequestManagerStub
from spincycle_grpc.v1.request_pb2 import RequestProgress
from spincycle_grpc.v1.runner_reports_pb2_grpc import RunnerReportsStub
from tests.certificates import write_ca, write_certificate
from tests.e2e.processes import ServerProcess, running
from tests.gateway.wire import Answer, Connection
from tests.limits import ANSWER, PROCESS_END

SPECS = """
sequences:
  owned:
    request: true
    args: {optional: [{name: owner, default: nobody}]}
    acl:
      - {role: operator, admin: true}
      - {role: starter, ops: [start]}
    nodes: {n: {category: job, type: noop}}
"""
CONFIG = """
auth:
  methods: token
  plugin: tests.e2e.access_plugin:Plugin
  timeout: 1s
  read: acl
  admin_roles: boss
"""
FINCH = "Bearer finch:operator"


def started(directory: Path, config: str) -> contextlib.AbstractContextManager[ServerProcess]:
    """Returns a context that runs a server of `SPECS` with a configuration."""
    (directory / "specs").mkdir()
    (directory / "specs" / "owned.yaml").write_text(SPECS)
    (directory / "config.yaml").write_text(config)
    return running("server", "config.yaml", "--http=127.0.0.1:0", "--specs=specs", directory=directory)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with started(tmp_path_factory.mktemp("access"), CONFIG) as server:
        server.wait_for("runner reports")
        yield server
        assert server.process.poll() is None
        assert "s3cret" not in server.log()


@pytest.fixture(scope="module")
def channel(server: ServerProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address("request-manager", "grpc")) as channel:
        yield channel


Header = tuple[str, str]


def failure(call: Callable[..., Any], request: Any, *headers: Header) -> tuple[str, str, str]:
    """Returns the code, the reason and the message of a gRPC call that fails."""
    with pytest.raises(grpc.RpcError) as caught:
        call(request, metadata=headers, timeout=ANSWER)
    error = error_from_rpc(caught.value, "the server")
    return error.status.name, error.reason, error.message


def over_http(
    server: ServerProcess, line: str, *headers: Header, body: object = None, name: str = "request-manager"
) -> Answer:
    """Returns the answer to a request with exactly these headers besides Host and those of the body."""
    data = b"" if body is None else json.dumps(body).encode()
    lines = [f"{line} HTTP/1.1", "Host: here", *(f"{name}: {value}" for name, value in headers)]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(data)}"]
    with Connection(server.address(name, "http")) as connection:
        connection.send("\r\n".join([*lines, "", ""]).encode() + data)
        return connection.answer()


def message_of(answer: Answer) -> str:
    message: str = json.loads(answer.body)["message"]
    return message


def created(channel: grpc.Channel, owner: str = "finch", token: str = FINCH) -> str:
    call = messages.CreateRequest(type="owned", args=to_struct({"owner": owner}))
    answer = RequestManagerStub(channel).Create(call, metadata=(("authorization", token),), timeout=ANSWER)
    return str(answer.request.id)


LIST = "GET /api/v1/requests"


@pytest.mark.parametrize(
    ("token", "code", "reason"),
    [
        ("", "UNAUTHENTICATED", "UNKNOWN_TOKEN"),
        ("Bearer unknown", "UNAUTHENTICATED", "UNKNOWN_TOKEN"),
        ("Bearer s3cret-none", "UNAUTHENTICATED", "NO_CALLER"),
        ("Bearer s3cret-text", "UNAUTHENTICATED", "NO_CALLER"),
        ("Bearer s3cret-roles", "UNAUTHENTICATED", "NO_CALLER"),
        ("Bearer s3cret-raise", "INTERNAL", "AUTH_PLUGIN_FAILED"),
        ("Bearer s3cret-exit", "INTERNAL", "AUTH_PLUGIN_FAILED"),
        ("Bearer s3cret-interrupt", "INTERNAL", "AUTH_PLUGIN_FAILED"),
        ("Bearer s3cret-cancel", "INTERNAL", "AUTH_PLUGIN_FAILED"),
        ("Bearer s3cret-hang", "UNAVAILABLE", "AUTH_PLUGIN_TIMEOUT"),
    ],
)
def test_whatever_a_plugin_does_one_call_fails_and_the_server_goes_on(
    server: ServerProcess, channel: grpc.Channel, token: str, code: str, reason: str
) -> None:
    headers = [("authorization", token)] if token else []
    find = RequestManagerStub(channel).Find
    assert failure(find, messages.FindRequest(), *headers)[:2] == (code, reason)
    answer = over_http(server, LIST, *headers)
    assert answer.status == {"UNAUTHENTICATED": 401, "INTERNAL": 500, "UNAVAILABLE": 503}[code]
    assert (answer.headers.get("www-authenticate") == 'Bearer realm="spincycle"') == (answer.status == 401)
    assert b"s3cret" not in answer.body
    find(messages.FindRequest(), metadata=(("authorization", FINCH),), timeout=ANSWER)
    assert over_http(server, LIST, ("Authorization", FINCH)).status == 200


REPEATED = [
    [("authorization", FINCH), ("authorization", FINCH)],
    [("authorization", FINCH), ("authorization", "Bearer other:operator")],
    [("authorization", "Bearer spincycle_x"), ("authorization", "Bearer spincycle_y")],
    [("authorization", ""), ("authorization", FINCH)],
]


@pytest.mark.parametrize("headers", REPEATED)
def test_a_repeated_authorization_header_is_refused(
    server: ServerProcess, channel: grpc.Channel, headers: list[Header]
) -> None:
    code, reason, message = failure(RequestManagerStub(channel).Find, messages.FindRequest(), *headers)
    assert (code, reason) == ("UNAUTHENTICATED", "REPEATED_CREDENTIALS")
    for names in (("authorization", "authorization"), ("Authorization", "AUTHORIZATION")):
        sent = [(name, value) for name, (_, value) in zip(names, headers, strict=True)]
        answer = over_http(server, LIST, *sent)
        assert (answer.status, message_of(answer)) == (401, message)
        assert answer.headers["www-authenticate"] == 'Bearer realm="spincycle"'


@pytest.mark.parametrize("is_closed", [False, True], ids=["open", "closed"])
def test_a_repeated_key_of_the_servers_is_refused(tmp_path: Path, is_closed: bool) -> None:
    key = "k" * 40
    (tmp_path / "key").write_text(key)
    config = "cluster: {key_file: key}\n" if is_closed else "cluster: {open: true}\n"
    progress = {"requestId": "c" * 20, "finishedJobs": 1}
    path = f"PUT /api/v1/requests/{'c' * 20}/progress"
    once, twice = [("spincycle-cluster-key", key)], [("spincycle-cluster-key", key)] * 2
    token = [*once, *[("authorization", "Bearer x")] * 2]
    with (
        started(tmp_path, config) as server,
        grpc.insecure_channel(server.address("request-manager", "grpc")) as channel,
    ):
        stub = RunnerReportsStub(channel)
        reported = RequestProgress(request_id="c" * 20, finished_jobs=1)
        request = runner_reports_pb2.ProgressRequest(request_id="c" * 20, progress=reported)
        for headers, code in ((once, "NOT_FOUND"), (twice, "UNAUTHENTICATED"), (token, "UNAUTHENTICATED")):
            assert failure(stub.Progress, request, *headers)[0] == code
            answer = over_http(server, path, *headers, body=progress)
            assert answer.status == {"NOT_FOUND": 404, "UNAUTHENTICATED": 401}[code]
            if answer.status == 401:
                assert "more than once" in message_of(answer)
        answer = over_http(server, "GET /api/v1/status/running", *twice, name="job-runner")
        assert answer.status == 401


def test_a_repeated_authorization_header_is_refused_although_a_certificate_identifies_the_caller(
    tmp_path: Path,
) -> None:
    authority = trustme.CA()
    own = write_certificate(tmp_path, "server", authority.issue_cert("localhost", "127.0.0.1"))
    ca_file = write_ca(tmp_path, authority)
    user = write_certificate(tmp_path, "user", authority.issue_cert("finch", common_name="finch"))
    config = f"""
auth: {{methods: certificate}}
server:
  tls: {{cert_file: {own.cert}, key_file: {own.key}, ca_file: {ca_file}, client_auth: require}}
"""
    pem = [Path(name).read_bytes() for name in (ca_file, user.key, user.cert)]
    context = ssl.create_default_context(cafile=ca_file)
    context.load_cert_chain(user.cert, user.key)
    with (
        started(tmp_path, config) as server,
        grpc.secure_channel(
            server.address("request-manager", "grpc"), grpc.ssl_channel_credentials(*pem)
        ) as channel,
    ):
        find = RequestManagerStub(channel).Find
        find(messages.FindRequest(), timeout=ANSWER)
        repeated = [("authorization", "Bearer a"), ("authorization", "Bearer b")]
        assert failure(find, messages.FindRequest(), *repeated)[1] == "REPEATED_CREDENTIALS"
        lines = "".join(f"{name}: {value}\r\n" for name, value in repeated)
        for headers, status in (("", 200), (lines, 401)):
            with Connection(server.address("request-manager", "http")) as connection:
                connection.socket = context.wrap_socket(connection.socket, server_hostname="localhost")
                connection.send(f"{LIST} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode())
                assert connection.answer().status == status


def test_a_denied_call_gets_401_on_a_route_of_the_original_and_403_on_a_new_one(
    server: ServerProcess, channel: grpc.Channel
) -> None:
    stranger = ("authorization", "Bearer wren:")
    body = {"Type": "owned", "Args": {"owner": "wren"}}
    code, reason, message = failure(
        RequestManagerStub(channel).Plan, messages.PlanRequest(type="owned"), stranger
    )
    assert (code, reason) == ("PERMISSION_DENIED", "ACCESS_DENIED")
    assert message == (
        "caller wren may not start requests of type owned: needs one of the roles: boss, operator, starter"
    )
    answer = over_http(server, "POST /api/v1/requests", stranger, body=body)
    assert (answer.status, json.loads(answer.body)) == (401, {"message": message})
    assert answer.headers["www-authenticate"] == 'Bearer realm="spincycle", error="insufficient_scope"'
    answer = over_http(server, "POST /api/v1/requests/plan", stranger, body=body)
    assert json.loads(answer.body) == {"message": message, "requestId": "", "httpStatus": 403}
    assert answer.status == 403
    assert "www-authenticate" not in answer.headers
    stop = f"PUT /api/v1/requests/{created(channel)}/stop"
    assert over_http(server, stop, ("authorization", "Bearer wren:starter")).status == 401


def test_the_plugin_decides_by_the_args(server: ServerProcess, channel: grpc.Channel) -> None:
    stub = RequestManagerStub(channel)
    for owner, code, reason in (
        ("wren", "PERMISSION_DENIED", "ACCESS_DENIED"),
        ("odd", "PERMISSION_DENIED", "ACCESS_DENIED"),
        ("broken", "INTERNAL", "AUTH_PLUGIN_FAILED"),
    ):
        call = messages.CreateRequest(type="owned", args=to_struct({"owner": owner}))
        assert failure(stub.Create, call, ("authorization", FINCH))[:2] == (code, reason)
    assert created(channel)
    assert over_http(server, LIST, ("authorization", FINCH)).status == 200


def test_reading_follows_the_access_lists(server: ServerProcess, channel: grpc.Channel) -> None:
    request_id = created(channel)
    stub = RequestManagerStub(channel)
    for token, may in ((FINCH, True), ("Bearer wren:starter", False)):
        listed = json.loads(over_http(server, LIST, ("authorization", token)).body)
        assert (request_id in {found["id"] for found in listed}) is may
        for path in ("", "/job-chain", "/log"):
            answer = over_http(server, f"GET /api/v1/requests/{request_id}{path}", ("authorization", token))
            assert answer.status == (200 if may else 401)
    code, _, message = failure(
        stub.GetLog, messages.GetLogRequest(request_id=request_id), ("authorization", "Bearer wren:starter")
    )
    assert code == "PERMISSION_DENIED"
    assert (
        "may not see the job log of requests of type owned: needs one of the roles: boss, operator" in message
    )


def test_a_job_runner_answers_admins_alone(server: ServerProcess) -> None:
    path = "GET /api/v1/status/running"
    for token, status in (("Bearer boss:boss", 200), (FINCH, 401)):
        answer = over_http(server, path, ("authorization", token), name="job-runner")
        assert answer.status == status
    assert over_http(server, path, ("authorization", FINCH)).status == 200


def test_reading_by_the_lists_needs_authentication(tmp_path: Path) -> None:
    with started(tmp_path, "auth: {read: acl}\n") as server:
        assert server.process.wait(PROCESS_END) == 2
        assert "option auth.read: acl needs auth.methods or auth.plugin" in server.log()
