"""A server whose port is taken names the option that sets it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.e2e.processes import running
from tests.limits import PROCESS_END


@pytest.mark.parametrize(
    ("command", "taken", "option"),
    [
        ("server", "--http", "server.addr (--http)"),
        ("server", "--grpc", "server.grpc (--grpc)"),
        ("server", "--runner-http", "job_runner.addr (--runner-http)"),
        ("server", "--runner-grpc", "job_runner.grpc (--runner-grpc)"),
        ("request-manager", "--grpc", "server.grpc (--grpc)"),
        ("job-runner", "--http", "server.addr (--http)"),
    ],
)
def test_the_error_names_the_option(command: str, taken: str, option: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        addresses = {"--http": "127.0.0.1:0", taken: f"127.0.0.1:{holder.getsockname()[1]}"}
        arguments = [f"{name}={address}" for name, address in addresses.items()]
        with running(command, *arguments, directory=tmp_path) as server:
            assert server.process.wait(PROCESS_END) == 1
            server.close()
            assert f"(option {option})" in server.events[-1]["message"]
