"""Only one process uses an SQLite file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from spincycle_grpc.errors import FailedPreconditionError, UnavailableError
from spincycle_server.database.file_lock import FileLock
from tests.limits import PROCESS_END

HOLD = (
    "import sys, time; from pathlib import Path; from spincycle_server.database.file_lock import FileLock; "
    "lock = FileLock(Path(sys.argv[1])); print('locked', flush=True); "
)


def holder(path: Path, then: str = "time.sleep(1000)") -> subprocess.Popen[bytes]:
    """Runs a process that locks a file, and returns when it has the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD + then, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"locked\n"
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait(PROCESS_END)
    assert process.stdout is not None
    process.stdout.close()


def test_a_second_process_is_told_who_uses_the_file_until_that_one_is_killed(tmp_path: Path) -> None:
    first = holder(tmp_path / "a.db")
    with pytest.raises(FailedPreconditionError, match=rf"a\.db \(process {first.pid}\)") as caught:
        FileLock(tmp_path / "a.db")
    assert caught.value.reason == "DATABASE_IN_USE"
    FileLock(tmp_path / "b.db").release()
    end(first)
    FileLock(tmp_path / "a.db").release()


def test_a_link_to_the_file_is_the_same_file(tmp_path: Path) -> None:
    (tmp_path / "a.db").touch()
    (tmp_path / "link.db").symlink_to("a.db")
    first = holder(tmp_path / "a.db")
    with pytest.raises(FailedPreconditionError):
        FileLock(tmp_path / "link.db")
    end(first)


def test_a_forked_child_that_is_left_behind_does_not_keep_the_lock(tmp_path: Path) -> None:
    first = holder(
        tmp_path / "a.db",
        "import os; child = os.fork(); child and print(child, flush=True); time.sleep(1000)",
    )
    assert first.stdout is not None
    child = int(first.stdout.readline())
    end(first)
    FileLock(tmp_path / "a.db").release()
    os.kill(child, signal.SIGKILL)


def test_a_directory_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="No such file"):
        FileLock(tmp_path / "none" / "a.db")
