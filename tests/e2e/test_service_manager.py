"""What servers tell systemd, and that jobs cannot speak for them. The test listens at systemd's socket."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from spincycle_grpc import Client
from tests.e2e.processes import running
from tests.e2e.waiting import eventually
from tests.limits import PROCESS_END, REQUEST_END

SPECS = """
sequences:
  print-environment:
    request: true
    args: {static: [{name: program, default: /usr/bin/env}]}
    nodes:
      print:
        category: job
        type: shell-command
        args: [{expected: cmd, given: program}]
"""


class ServiceManager:
    """Listens where systemd would listen.

    Attributes:
        messages: What it was told so far.
    """

    def __init__(self, name: str) -> None:
        self.messages: list[bytes] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._listener.bind("\0" + name[1:] if name.startswith("@") else name)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while message := self._listener.recv(100):
            self.messages.append(message)

    def close(self) -> None:
        """Ends the reader."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self._listener.getsockname())
        self._reader.join(PROCESS_END)
        self._listener.close()


@pytest.mark.parametrize("name", ["{tmp_path}/notify", "@spincycle-test-{pid}"], ids=["path", "abstract"])
def test_a_server_reports_ready_alive_and_stopping(name: str, tmp_path: Path) -> None:
    name = name.format(tmp_path=tmp_path, pid=os.getpid())
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs" / "print.yaml").write_text(SPECS)
    environment = {
        "NOTIFY_SOCKET": name, "WATCHDOG_USEC": "300000", "SPINCYCLE_SPECS_DIR": "specs",
        "SPINCYCLE_JOBS": "",
    }  # fmt: skip
    with (
        contextlib.closing(ServiceManager(name)) as manager,
        running("server", "--http=127.0.0.1:0", directory=tmp_path, environment=environment) as server,
    ):
        eventually(lambda: b"READY=1" in manager.messages)
        before = len(manager.messages)
        eventually(lambda: manager.messages[before:].count(b"WATCHDOG=1") >= 3)
        with Client(server.address("request-manager", "grpc")) as client:
            request = client.wait(client.create("print-environment").id, deadline=REQUEST_END)
            printed = "".join(entry.stdout for entry in client.log(request.id))
        assert "PATH=" in printed
        assert "NOTIFY_SOCKET" not in printed
        assert "WATCHDOG" not in printed
        assert b"STOPPING=1" not in manager.messages
        assert server.terminate() == 0
        eventually(lambda: b"STOPPING=1" in manager.messages)
        others = [message for message in manager.messages if message != b"WATCHDOG=1"]
        assert others == [b"READY=1", b"STOPPING=1"]


def test_a_server_runs_although_the_service_manager_is_gone(tmp_path: Path) -> None:
    environment = {"NOTIFY_SOCKET": str(tmp_path / "gone")}
    with running("job-runner", "--http=127.0.0.1:0", directory=tmp_path, environment=environment) as server:
        server.wait_for("the service manager was not told", state="READY=1")
        assert server.terminate() == 0


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, [None, None]),
        ({"NOTIFY_SOCKET": "/run/s", "WATCHDOG_USEC": "1500000"}, ["/run/s", 1.5]),
        ({"NOTIFY_SOCKET": "/run/s", "WATCHDOG_USEC": "1500000", "WATCHDOG_PID": "1"}, ["/run/s", None]),
        ({"NOTIFY_SOCKET": "", "WATCHDOG_USEC": "soon"}, [None, None]),
    ],
)
def test_the_variables_of_the_service_manager(
    variables: dict[str, str], expected: list[str | float | None]
) -> None:
    code = (
        "import json, os; from spincycle_server.config import take_service_manager_options as take;"
        "print(json.dumps([list(take()), [name for name in os.environ if name[:5] in ('NOTIF', 'WATCH')]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **variables}, capture_output=True, check=True
    )
    assert json.loads(done.stdout) == [expected, []]
