"""TLS between real servers, users and other servers, while certificates change."""

from __future__ import annotations

import json
import signal
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import trustme

from spincycle_grpc.channels import open_channel
from spincycle_grpc.state import State
from spincycle_grpc.v1 import job_runner_pb2, request_manager_pb2
from spincycle_grpc.v1.job_runner_pb2_grpc import JobRunnerStub
from spincycle_grpc.v1.request_manager_pb2_grpc import RequestManagerStub
from tests.certificates import Files, write_ca, write_certificate
from tests.e2e.processes import ServerProcess, running
from tests.e2e.waiting import eventually, wait_state
from tests.limits import ANSWER, PROCESS_END


class Authority:
    """A CA, and the certificates that it has issued into a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ca = trustme.CA()
        self.file = write_ca(directory, self.ca)

    def issue(self, name: str, *names: str) -> Files:
        leaf = self.ca.issue_cert(*(names or ("127.0.0.1",)), common_name=name)
        return write_certificate(self.directory, name, leaf)

    def tls(self, own: Files) -> dict[str, str]:
        """Returns the options of a group of TLS files."""
        return {"cert_file": own.cert, "key_file": own.key, "ca_file": self.file}

    def replace(self, *also_trusted: trustme.CA) -> trustme.CA:
        """Continues with a new CA, and trusts others too. Returns the old one."""
        old, self.ca = self.ca, trustme.CA()
        self.trust(*also_trusted)
        return old

    def trust(self, *also_trusted: trustme.CA) -> None:
        write_ca(self.directory, self.ca, *also_trusted)

    def https(self, server: ServerProcess, user: Files | None = None) -> httpx.Client:
        context = ssl.create_default_context(cadata=self.ca.cert_pem.bytes().decode())
        if user is not None:
            context.load_cert_chain(user.cert, user.key)
        return httpx.Client(
            base_url=f"https://{server.address('request-manager', 'http')}", verify=context, timeout=ANSWER
        )

    def credentials(self, user: Files | None = None) -> grpc.ChannelCredentials:
        if user is None:
            return grpc.ssl_channel_credentials(self.ca.cert_pem.bytes())
        return grpc.ssl_channel_credentials(
            self.ca.cert_pem.bytes(), Path(user.key).read_bytes(), Path(user.cert).read_bytes()
        )


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def config_file(directory: Path, name: str, **options: Any) -> str:
    path = directory / f"{name}.yaml"
    path.write_text(json.dumps(options))
    return str(path)


def run_a_request(http: httpx.Client) -> None:
    created = http.post("/api/v1/requests", json={"type": "diamond"})
    assert created.status_code == 201, created.text
    wait_state(http, created.json()["id"], State.COMPLETE)


def test_one_process_needs_only_a_certificate_and_its_key(tmp_path: Path, authority: Authority) -> None:
    own = authority.issue("server")
    file = config_file(tmp_path, "c", server={"tls": {"cert_file": own.cert, "key_file": own.key}})
    with running("server", file, "--http=127.0.0.1:0", directory=tmp_path) as server:
        server.wait_for("reporting")
        with authority.https(server) as http:
            run_a_request(http)
        inside = server.wait_for("listening for servers", server="job-runner")["grpc"]
        assert code_of_running_jobs(inside, None) is grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"http://{server.address('request-manager', 'http')}/version", timeout=ANSWER)
        assert server.terminate() == 0
        assert not [event for event in server.events if event["level"] in ("error", "critical")]


@contextmanager
def installation(tmp_path: Path, authority: Authority) -> Iterator[tuple[ServerProcess, ServerProcess]]:
    """Runs a Request Manager and a Job Runner that know each other by their certificates alone."""
    cluster = {"listen": "127.0.0.1:0", "certificates": ["manager", "runner"]}
    manager_tls = authority.tls(authority.issue("manager"))
    runner_tls = authority.tls(authority.issue("runner"))
    manager_file = config_file(
        tmp_path, "m", server={"tls": manager_tls}, jr_client={"tls": manager_tls}, cluster=cluster
    )
    runner_file = config_file(
        tmp_path, "r", server={"tls": runner_tls}, rm_client={"tls": runner_tls}, cluster=cluster
    )
    with running("request-manager", manager_file, "--http=127.0.0.1:0", directory=tmp_path) as manager:
        address = manager.wait_for("listening for servers")["grpc"]
        arguments = ("job-runner", runner_file, "--http=127.0.0.1:0", f"--rm={address}")
        with running(*arguments, directory=tmp_path) as runner:
            manager.wait_for("runner reports")
            yield manager, runner


def test_servers_with_certificates_have_addresses_of_their_own(tmp_path: Path, authority: Authority) -> None:
    with installation(tmp_path, authority) as (manager, runner):
        with authority.https(manager) as http:
            run_a_request(http)
            assert http.get("/api/v1/status/running").status_code == 200
        alice = authority.issue("alice", "alice@example.com")
        for_servers = manager.wait_for("listening for servers")["grpc"]
        assert code_of_find(for_servers, authority.credentials()) is grpc.StatusCode.UNAVAILABLE
        assert code_of_find(for_servers, authority.credentials(alice)) is grpc.StatusCode.UNIMPLEMENTED
        for_managers = runner.wait_for("listening for servers")["grpc"]
        assert code_of_stop(for_managers, authority.credentials(alice)) is grpc.StatusCode.UNAUTHENTICATED
        own = Files(str(tmp_path / "manager.pem"), str(tmp_path / "manager-key.pem"))
        assert code_of_stop(for_managers, authority.credentials(own)) is grpc.StatusCode.NOT_FOUND
        assert code_of_running_jobs(for_managers, authority.credentials(alice)) is (
            grpc.StatusCode.UNAUTHENTICATED
        )


def code_of_find(address: str, credentials: grpc.ChannelCredentials) -> grpc.StatusCode:
    with grpc.secure_channel(address, credentials) as channel:
        return code_of(RequestManagerStub(channel).Find, request_manager_pb2.FindRequest())


def code_of_stop(address: str, credentials: grpc.ChannelCredentials) -> grpc.StatusCode:
    with grpc.secure_channel(address, credentials) as channel:
        return code_of(
            JobRunnerStub(channel).StopJobChain, job_runner_pb2.StopJobChainRequest(request_id="x")
        )


def code_of_running_jobs(address: str, credentials: grpc.ChannelCredentials | None) -> grpc.StatusCode:
    request = job_runner_pb2.RunningJobsRequest()
    with open_channel(address, credentials) as channel:
        return code_of(JobRunnerStub(channel).RunningJobs, request)


def code_of(method: Any, request: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as raised:
        method(request, timeout=ANSWER)
    code: grpc.StatusCode = raised.value.code()
    return code


def test_all_certificates_and_the_ca_are_replaced_while_requests_run(
    tmp_path: Path, authority: Authority
) -> None:
    with installation(tmp_path, authority) as servers, authority.https(servers[0]) as http:
        run_a_request(http)
        old = authority.replace()
        authority.trust(old)
        reload(*servers, option="server.tls", times=1)
        authority.issue("manager")
        authority.issue("runner")
        reload(*servers, option="server.tls", times=2)
        authority.trust()
        reload(*servers, option="server.tls", times=3)
        servers[1].wait_for("reconnecting with new certificates")
        assert http.get("/version").status_code == 200, "the old connection continues"
        with authority.https(servers[0]) as new_http:
            run_a_request(new_http)
        for server in servers:
            assert not [event for event in server.events if event.get("message") == "reporting interrupted"]


def reload(*servers: ServerProcess, option: str, times: int) -> None:
    """Sends SIGHUP, and waits until the servers have reloaded the files of an option for the nth time."""
    for server in servers:
        server.process.send_signal(signal.SIGHUP)
    eventually(lambda: all(reloads(server, option) >= times for server in servers))


def reloads(server: ServerProcess, option: str) -> int:
    return sum(
        event.get("message") == "certificate files reloaded" and event["option"] == option
        for event in server.events
    )


def test_users_with_certificates_have_their_names_and_roles_on_both_transports(
    tmp_path: Path, authority: Authority
) -> None:
    own = authority.issue("server")
    file = config_file(
        tmp_path,
        "c",
        server={"tls": {**authority.tls(own), "client_auth": "require"}},
        auth={
            "methods": ["certificate"],
            "strict": "true",
            "certificates": {"name": "email", "roles": {"alice@example.com": ["admin"]}},
            "admin_roles": ["admin"],
        },
    )
    alice = authority.issue("alice", "alice@example.com")
    bob = authority.issue("bob", "bob@example.com")
    with running("server", file, "--http=127.0.0.1:0", directory=tmp_path) as server:
        server.wait_for("reporting")
        with authority.https(server, alice) as http:
            created = http.post("/api/v1/requests", json={"type": "diamond"})
            assert created.json()["user"] == "alice@example.com"
        with authority.https(server, bob) as http:
            assert http.get("/api/v1/requests").status_code == 200
            assert http.post("/api/v1/requests", json={"type": "diamond"}).status_code == 401
        with pytest.raises(httpx.TransportError), authority.https(server) as http:
            http.get("/version")
        address = server.address("request-manager", "grpc")
        with grpc.secure_channel(address, authority.credentials(bob)) as channel:
            stub = RequestManagerStub(channel)
            stub.Running(request_manager_pb2.RunningRequest(), timeout=ANSWER)
            create = request_manager_pb2.CreateRequest(type="diamond")
            assert code_of(stub.Create, create) is grpc.StatusCode.PERMISSION_DENIED
        assert code_of_find(address, authority.credentials()) is grpc.StatusCode.UNAVAILABLE
        assert server.terminate() == 0


def test_a_removed_ca_refuses_its_users_on_open_connections(tmp_path: Path, authority: Authority) -> None:
    users = trustme.CA()
    users_file = write_ca(tmp_path, users, name="users")
    leaf = users.create_child_ca().issue_cert("alice@example.com", common_name="alice")
    alice = write_certificate(tmp_path, "alice", leaf)
    own = authority.issue("server")
    tls = {"cert_file": own.cert, "key_file": own.key, "ca_file": users_file, "client_auth": "require"}
    file = config_file(tmp_path, "c", server={"tls": tls}, auth={"methods": ["certificate"]})
    with (
        running("server", file, "--http=127.0.0.1:0", directory=tmp_path) as server,
        authority.https(server, alice) as http,
        grpc.secure_channel(
            server.address("request-manager", "grpc"), authority.credentials(alice)
        ) as channel,
    ):
        stub = RequestManagerStub(channel)
        assert http.get("/api/v1/requests").status_code == 200
        stub.Find(request_manager_pb2.FindRequest(), timeout=ANSWER)
        write_ca(tmp_path, trustme.CA(), name="users")
        reload(server, option="server.tls", times=1)
        refused = http.get("/api/v1/requests")
        assert refused.status_code == 401
        assert "no longer trusts the CA" in refused.text
        assert code_of(stub.Find, request_manager_pb2.FindRequest()) is grpc.StatusCode.UNAUTHENTICATED


def test_servers_name_the_option_that_would_let_them_connect(tmp_path: Path, authority: Authority) -> None:
    own = authority.issue("server")
    tls = {"cert_file": own.cert, "key_file": own.key}
    file = config_file(tmp_path, "m", server={"tls": tls}, cluster={"open": "true"})
    with running("request-manager", file, "--http=127.0.0.1:0", directory=tmp_path) as manager:
        address = manager.address("request-manager", "grpc")
        with running("job-runner", "--http=127.0.0.1:0", f"--rm={address}", directory=tmp_path) as runner:
            error = runner.wait_for("reporting interrupted")["error"]
            assert f"{address} uses TLS, and this client does not: set rm_client.tls.ca_file" in error
        other = write_ca(tmp_path, trustme.CA(), name="other")
        file = config_file(tmp_path, "r", rm_client={"tls": {"ca_file": other}})
        arguments = ("job-runner", file, "--http=127.0.0.1:0", f"--rm={address}")
        with running(*arguments, directory=tmp_path) as runner:
            error = runner.wait_for("reporting interrupted")["error"]
            assert error.endswith("set rm_client.tls.ca_file to the CA that has")


def test_a_runner_warns_of_a_certificate_for_another_host(tmp_path: Path, authority: Authority) -> None:
    own = authority.issue("runner", "runner.example.com")
    file = config_file(
        tmp_path, "r", server={"tls": {"cert_file": own.cert, "key_file": own.key}}, cluster={"open": "true"}
    )
    with running("job-runner", file, "--http=127.0.0.1:0", "--rm=127.0.0.1:1", directory=tmp_path) as runner:
        runner.wait_for("reporting interrupted")
        (warning,) = [event for event in runner.events if "does not contain the host" in event["message"]]
        assert warning["host"] == "127.0.0.1"


def test_a_server_names_the_key_that_does_not_belong_to_its_certificate(
    tmp_path: Path, authority: Authority
) -> None:
    own, other = authority.issue("server"), authority.issue("other")
    file = config_file(tmp_path, "c", server={"tls": {"cert_file": own.cert, "key_file": other.key}})
    with running("server", file, "--http=127.0.0.1:0", directory=tmp_path) as server:
        assert server.process.wait(PROCESS_END) != 0
        server.close()
        assert "option server.tls.key_file: the key in" in server.log()
        assert "does not belong to the first certificate" in server.log()
        assert "in use" not in server.log()
