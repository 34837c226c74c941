"""How workers are operated: reloads, certificates, systemd, metrics on a port of their own, process 1."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import psutil
import pytest
import trustme

from spincycle_grpc.v1 import request_manager_pb2 as messages
from spincycle_grpc.v1.request_manager_pb2_grpc import RequestManagerStub
from tests.certificates import write_ca, write_certificate
from tests.databases import SharedServers
from tests.e2e.processes import REPOSITORY, ServerProcess, running
from tests.e2e.test_service_manager import ServiceManager
from tests.e2e.waiting import eventually
from tests.e2e.worker_servers import (
    WORKERS,
    WorkerServer,
    each_worker,
    listens,
    port_of,
    variables,
    worker_server,
)
from tests.limits import ANSWER, PROCESS_END

NEW = "sequences: {new: {request: true, nodes: {a: {category: job, type: noop}}}}\n"


@pytest.fixture
def url(database_servers: SharedServers, tmp_path: Path) -> Iterator[str]:
    with database_servers.migrated("mariadb", tmp_path) as found:
        yield found


def test_sighup_reloads_the_specs_of_all_workers(url: str, tmp_path: Path) -> None:
    with worker_server(tmp_path, url) as server, each_worker(server) as stubs:
        (tmp_path / "specs" / "new.yaml").write_text(NEW)
        server.process.process.send_signal(signal.SIGHUP)
        for number in server.pids():
            server.process.wait_for("specs reloaded", worker=number)
        for stub in stubs:
            assert stub.Create(messages.CreateRequest(type="new"), timeout=ANSWER).request.id
        assert server.process.terminate() == 0


def serial_number(address: str) -> int:
    """Returns the serial number of the certificate that a server presents on a new connection."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port_of(address)), ANSWER) as plain,
        context.wrap_socket(plain) as tls,
    ):
        der = tls.getpeercert(binary_form=True)
    assert der is not None
    from cryptography.x509 import load_der_x509_certificate

    return load_der_x509_certificate(der).serial_number


def test_a_new_certificate_is_used_by_all_workers(url: str, tmp_path: Path) -> None:
    authority = trustme.CA()
    write_ca(tmp_path, authority)
    own = write_certificate(tmp_path, "server", authority.issue_cert("127.0.0.1"))
    options = {"server": {"tls": {"cert_file": own.cert, "key_file": own.key}}}
    (tmp_path / "options.yaml").write_text(json.dumps(options))
    with worker_server(tmp_path, url, str(tmp_path / "options.yaml")) as server:
        old = {serial_number(address) for address in (server.http, server.grpc)}
        assert len(old) == 1
        write_certificate(tmp_path, "server", authority.issue_cert("127.0.0.1"))
        server.process.process.send_signal(signal.SIGHUP)
        for number in server.pids():
            server.process.wait_for("certificate files reloaded", worker=number)
        found = {
            serial_number(address) for _ in range(10 * WORKERS) for address in (server.http, server.grpc)
        }
        assert len(found) == 1
        assert found != old
        credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
        with grpc.secure_channel(server.grpc, credentials) as channel:
            stub = RequestManagerStub(channel)
            assert stub.Version(messages.RequestManagerVersionRequest(), timeout=ANSWER).version
        assert server.process.terminate() == 0


def test_systemd_hears_only_the_supervisor_and_a_hanging_worker_is_replaced(url: str, tmp_path: Path) -> None:
    name = str(tmp_path / "notify")
    environment = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "6000000"}
    with (
        contextlib.closing(ServiceManager(name)) as manager,
        worker_server(tmp_path, url, environment=environment) as server,
    ):
        eventually(lambda: b"READY=1" in manager.messages)
        eventually(lambda: manager.messages.count(b"WATCHDOG=1") >= 3)
        hanging = server.pids()[3]
        os.kill(hanging, signal.SIGSTOP)
        server.process.wait_for("worker hangs: it is killed", worker=3, pid=hanging)
        server.wait_replaced(3, hanging)
        assert server.process.terminate() == 0
        eventually(lambda: b"STOPPING=1" in manager.messages)
        others = [message for message in manager.messages if message != b"WATCHDOG=1"]
        assert others == [b"READY=1", b"STOPPING=1"]


def test_the_port_for_metrics_shows_all_workers_while_one_is_replaced(url: str, tmp_path: Path) -> None:
    environment = {"SPINCYCLE_SERVER_METRICS": "127.0.0.1:0"}
    with worker_server(tmp_path, url, environment=environment) as server, each_worker(server) as stubs:
        address = str(server.process.wait_for("listening for metrics")["http"])
        for stub in stubs:
            stub.Create(messages.CreateRequest(type="work"), timeout=ANSWER)
        created = 'spincycle_requests_created_total{"server": "request-manager", "type": "work"}'
        assert {server.metrics(address)[created] for _ in range(3 * WORKERS)} == {WORKERS}
        pid = server.pids()[2]
        os.kill(pid, signal.SIGKILL)
        assert server.metrics(address)[created] == WORKERS
        server.wait_replaced(2, pid)
        assert server.metrics(address)[created] == WORKERS
        assert server.process.terminate() == 0


def test_a_worker_that_is_ended_alone_finishes_and_is_replaced(url: str, tmp_path: Path) -> None:
    with worker_server(tmp_path, url) as server:
        pid = server.pids()[1]
        os.kill(pid, signal.SIGTERM)
        server.process.wait_for("worker ended: it is replaced", worker=1, status=0)
        server.wait_replaced(1, pid)
        assert server.process.terminate() == 0


def test_http_over_a_unix_socket_is_shared_and_removed_at_the_end(url: str, tmp_path: Path) -> None:
    arguments = ("--http=unix:http.sock", "--grpc=127.0.0.1:0")
    with worker_server(tmp_path, url, *arguments) as server:
        path = tmp_path / "http.sock"
        for _ in range(3 * WORKERS):
            assert _readyz(path).startswith(b"HTTP/1.1 200")
        pid = server.pids()[1]
        os.kill(pid, signal.SIGTERM)
        server.wait_replaced(1, pid)
        assert path.exists(), "a worker removed the socket of the others"
        assert server.process.terminate() == 0
        assert not path.exists()


def _readyz(path: Path) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(ANSWER)
        connection.connect(str(path))
        connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return connection.recv(1000)


def test_workers_run_below_process_1_of_a_container(url: str, tmp_path: Path) -> None:
    if shutil.which("unshare") is None or os.geteuid() != 0:
        pytest.skip("only root can make PID namespaces")
    command = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-m", "spincycle_server"]
    process = subprocess.Popen(
        [*command, "request-manager", "--workers=2", f"--db={url}", "--http=127.0.0.1:0"],
        cwd=tmp_path,
        env=os.environ
        | variables(tmp_path)
        | {"PYTHONPATH": str(REPOSITORY), "SPINCYCLE_LOG_FORMAT": "json"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    server = ServerProcess(process)
    try:
        address = server.address("request-manager", "http")
        [first] = psutil.Process(process.pid).children()
        below = first.children(recursive=True)
        assert len(below) == 3  # the supervisor and its workers
        assert sum(listens(one.pid, port_of(address)) for one in below) == 3
        first.send_signal(signal.SIGTERM)
        server.wait_for("shutting down")
        assert process.wait(PROCESS_END) == 0
        assert not [one for one in below if one.is_running()]
    finally:
        server.close()


def test_an_interrupt_from_the_terminal_ends_all_workers_cleanly(url: str, tmp_path: Path) -> None:
    """A terminal sends SIGINT to all processes of the group; workers must not take it for a second signal."""
    with running(
        "request-manager", "--workers=2", f"--db={url}", "--http=127.0.0.1:0", directory=tmp_path,
        environment=variables(tmp_path), anew=True,
    ) as process:  # fmt: skip
        server = WorkerServer(process)
        groups = {pid: os.getpgid(pid) for pid in server.pids().values()}
        assert groups == {pid: pid for pid in groups}, "workers are in groups of their own"
        assert server.process.terminate(signal.SIGINT) == 0
        assert not [e for e in process.events if e["message"].startswith("exited at once")]
