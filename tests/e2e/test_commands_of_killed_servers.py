"""The process groups of commands end with their server, however it ends."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from spincycle_grpc import Client
from tests.e2e.processes import ServerProcess, running
from tests.e2e.test_secrets_and_jobs import SPEC
from tests.e2e.waiting import eventually

SCRIPTS = {
    "one process": ("echo $$ >>pids; exec sleep 3600", 1),
    "children and grandchildren": ("for i in 1 2; do sh -c 'echo $$ >>pids; sleep 3600' & done; wait", 2),
    "signals are ignored": ("trap '' TERM HUP INT; echo $$ >>pids; sleep 3600 & wait", 1),
    "no output": ("exec >/dev/null 2>&1; sh -c 'echo $$ >>pids; exec sleep 3600' & sleep 3600", 1),
}
COMMANDS = 3


def start_commands(server: ServerProcess, directory: Path, script: str, processes: int) -> list[int]:
    """Starts commands, and returns the ids of processes that they have started."""
    (directory / "run.sh").write_text(script)
    with Client(server.address("request-manager", "grpc")) as client:
        for _ in range(COMMANDS):
            client.create("look", {"cmd": "sh", "args": "run.sh"})
    pids = directory / "pids"

    def all_started() -> list[str]:
        lines = pids.read_text().split("\n")[:-1] if pids.exists() else []
        return lines if len(lines) == COMMANDS * processes else []

    found = [int(line) for line in eventually(all_started)]
    assert all(map(psutil.pid_exists, found))
    return found


def are_gone(pids: list[int]) -> bool:
    for pid in pids:
        try:
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                return False
        except psutil.NoSuchProcess:
            pass
    return True


def kill(server: ServerProcess) -> None:
    server.kill()


def end_with_two_signals(server: ServerProcess) -> None:
    server.process.send_signal(signal.SIGTERM)
    server.wait_for("shutting down")
    assert server.terminate() == 128 + signal.SIGTERM


def stop(server: ServerProcess) -> None:
    assert server.terminate() == 0


def kill_after_the_guard(server: ServerProcess) -> None:
    """The first guard is killed. The next command starts another one, which knows the earlier commands."""
    [guard] = guards(server)
    guard.kill()
    eventually(lambda: are_gone([guard.pid]))
    with Client(server.address("request-manager", "grpc")) as client:
        client.wait(client.create("look", {"cmd": "true", "args": ""}).id)
    server.kill()


def guards(server: ServerProcess) -> list[psutil.Process]:
    children = psutil.Process(server.process.pid).children()
    return [one for one in children if "-I" in one.cmdline()]


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("end", [kill, end_with_two_signals, stop, kill_after_the_guard])
def test_commands_end_with_the_server(
    end: Callable[[ServerProcess], None], script: str, tmp_path: Path
) -> None:
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs" / "look.yaml").write_text(SPEC)
    with running("server", "--http=127.0.0.1:0", "--specs=specs", directory=tmp_path) as server:
        server.wait_for("runner reports")
        pids = start_commands(server, tmp_path, *SCRIPTS[script])
        known = guards(server)
        assert len(known) == 1
        end(server)
        eventually(lambda: are_gone(pids))
        eventually(lambda: are_gone([guard.pid for guard in known]))
