"""API tokens of running servers, over HTTP and gRPC, created and revoked by commands in the meantime."""

from __future__ import annotations

import contextlib
import time
from functools import partial
from pathlib import Path

import grpc
import httpx
import pytest

from spincycle_grpc.v1.request_manager_pb2 import FindRequest
from spincycle_grpc.v1.request_manager_pb2_grpc import RequestManagerStub
from tests.commands.in_process import spincycle
from tests.databases import SharedServers, migrate
from tests.e2e.processes import ServerProcess, running
from tests.e2e.waiting import eventually
from tests.limits import ANSWER

REVOKED_WITHIN = 5.0
"""Seconds after which no server accepts a revoked token."""


def http_status(server: ServerProcess, token: str, name: str = "request-manager") -> int:
    path = {"request-manager": "/api/v1/requests?limit=1", "job-runner": "/api/v1/status/running"}[name]
    headers = {"authorization": f"Bearer {token}"} if token else {}
    url = f"http://{server.address(name, 'http')}{path}"
    return httpx.get(url, headers=headers, timeout=ANSWER).status_code


def grpc_status(server: ServerProcess, token: str) -> grpc.StatusCode:
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    with grpc.insecure_channel(server.address("request-manager", "grpc")) as channel:
        try:
            RequestManagerStub(channel).Find(FindRequest(), metadata=metadata, timeout=ANSWER)
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
    return grpc.StatusCode.OK


def refuses(server: ServerProcess, token: str) -> bool:
    return http_status(server, token) == 401


def create(directory: Path, url: str, name: str, *arguments: str) -> str:
    done = spincycle(directory, "token", "create", name, f"--db={url}", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("kind", ["sqlite", "mariadb", "postgresql"])
def test_tokens_open_and_close_every_server_of_the_database(
    kind: str, database_servers: SharedServers, tmp_path: Path
) -> None:
    url = database_servers.url(kind, tmp_path)
    migrate(url)
    arguments = ("server", "--http=127.0.0.1:0", f"--db={url}")
    settings = {"SPINCYCLE_AUTH_METHODS": "token"}
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(running(*arguments, directory=tmp_path, environment=settings))
            for _ in range(1 if kind == "sqlite" else 2)
        ]
        for server in servers:
            for unknown in ("", "spincycle_" + "x" * 43, "nonsense"):
                assert http_status(server, unknown) == 401
                assert grpc_status(server, unknown) is grpc.StatusCode.UNAUTHENTICATED
        token = create(tmp_path, url, "alice", "--role", "dba")
        brief = create(tmp_path, url, "brief", "--expires", "5s")
        for server in servers:
            assert http_status(server, token) == 200  # at the first call
            assert grpc_status(server, token) is grpc.StatusCode.OK
            assert http_status(server, token, "job-runner") == 200
            assert http_status(server, "", "job-runner") == 401
        assert spincycle(tmp_path, "token", "revoke", "alice", f"--db={url}").returncode == 0
        time.sleep(REVOKED_WITHIN)
        for server in servers:
            assert http_status(server, token) == 401
            assert grpc_status(server, token) is grpc.StatusCode.UNAUTHENTICATED
            eventually(partial(refuses, server, brief))
            for secret in (token, brief):
                assert secret not in server.log()


def test_a_job_runner_by_itself_sends_users_to_the_request_manager(tmp_path: Path) -> None:
    key = tmp_path / "cluster.key"
    key.write_text("k" * 40)
    settings = {"SPINCYCLE_AUTH_METHODS": "token", "SPINCYCLE_CLUSTER_KEY_FILE": str(key)}
    arguments = ("job-runner", "--http=127.0.0.1:0", "--rm=127.0.0.1:9")
    with running(*arguments, directory=tmp_path, environment=settings) as runner:
        url = f"http://{runner.address('job-runner', 'http')}/api/v1/status/running"
        refused = httpx.get(url, headers={"authorization": "Bearer spincycle_x"}, timeout=ANSWER)
    assert refused.status_code == 401
    assert "ask the Request Manager" in refused.text
