"""Who may connect to a unix socket."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from spincycle_server.app.unix_sockets import allowing_group
from spincycle_server.listening import Address


@pytest.fixture(params=[0o000, 0o022, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_other_users_can_never_connect_whatever_the_umask_is(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        with allowing_group(Address(f"unix:{path}", 0)):
            listener.bind(str(path))
            assert mode_of(path) == 0o660
        assert mode_of(path) == 0o660
    assert os.umask(umask) == umask


def test_the_umask_is_as_before_after_a_failure(umask: int, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="in use"), allowing_group(Address(f"unix:{tmp_path}/s", 0)):
        raise OSError("in use")
    assert os.umask(umask) == umask


def test_tcp_does_not_change_the_umask(umask: int) -> None:
    with allowing_group(Address("127.0.0.1", 0)):
        assert os.umask(umask) == umask
