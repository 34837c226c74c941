"""The files of unix sockets: made when a server starts, removed when it stops."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from spincycle_grpc.errors import UnavailableError
from spincycle_server.listening import Address

MODE = 0o660
"""Who may connect: the user and the group of the server."""

_PROBE_TIMEOUT = 1.0


@contextlib.contextmanager
def claimed_socket(address: Address) -> Iterator[None]:
    """Removes the socket that an earlier server left, and the own one at the end. Does nothing for TCP.

    Raises:
        UnavailableError: A server listens there, or another file has the path. Reason: ADDRESS_IN_USE.
    """
    if not address.is_unix:
        yield
        return
    path = Path(address.socket_path)
    _remove_stale(path, address)
    owner = os.getpid()
    try:
        yield
    finally:
        if os.getpid() == owner:  # A worker that was forked meanwhile leaves it to its supervisor.
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def allowing_group(address: Address) -> Iterator[None]:
    """Lets only the user and the group of the server connect to the socket that is made in the block.

    Other users cannot connect in between either, whatever the umask is. Does nothing for TCP.
    """
    if not address.is_unix:
        yield
        return
    before = os.umask(0o777 & ~MODE)
    try:
        yield
    finally:
        os.umask(before)
    os.chmod(address.socket_path, MODE)


def _remove_stale(path: Path, address: Address) -> None:
    try:
        is_socket = stat.S_ISSOCK(path.lstat().st_mode)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _cannot_listen(address, (error.strerror or str(error)).lower()) from error
    if not is_socket:
        raise _cannot_listen(address, "another file has this path")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_PROBE_TIMEOUT)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:  # Its server has ended without removing it.
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            raise _cannot_listen(address, (error.strerror or str(error)).lower()) from error
    raise _cannot_listen(address, "a server listens there")


def _cannot_listen(address: Address, why: str) -> UnavailableError:
    return UnavailableError(f"cannot listen on {address}: {why}", reason="ADDRESS_IN_USE")
