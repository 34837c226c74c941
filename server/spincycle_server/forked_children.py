"""What a process that a job forks inherits from the server: neither its signal handling nor its descriptors.

The event loop's wakeup descriptor would pass signals of the child on to the server. A copy of a descriptor
would keep a port or a connection open after the server has closed it. So a child replaces the server's
descriptors by /dev/null, and keeps the others: they belong to the job.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

from spincycle_server.listening import Address

_STANDARD = 2
"""Descriptors up to this one are stdin, stdout and stderr, which jobs and their children share."""

_SQLITE_SUFFIXES = ("", "-wal", "-shm", "-journal", "-lock")
_TABLES = ("/proc/self/fd", "/dev/fd")
_ANONYMOUS = "anon_inode:"
_HIGHEST = 65_536
"""Where the search for open descriptors ends if their table cannot be read."""

_blocked = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}
_masks = threading.local()
_exec_follows: ContextVar[bool] = ContextVar("_exec_follows", default=False)
_identities: dict[int, str] = {}
_files: set[str] = set()
_ports: set[int] = set()
_paths: set[str] = set()


def install() -> None:
    """Makes processes that this process forks from now on let go of the server."""
    os.register_at_fork(
        before=_block_signals, after_in_parent=_unblock_signals, after_in_child=_let_go_of_server
    )


def add_descriptor(descriptor: int) -> None:
    """Notes a descriptor of the server. When it is closed, its number may belong to a job."""
    _identities[descriptor] = _identity(descriptor)


def add_open_descriptors(*, anonymous: bool = False) -> None:
    """Notes all open descriptors as the server's.

    Args:
        anonymous: Whether to note only those without a name, such as those of event loops. Jobs that are
            loaded already may have opened the others.
    """
    for descriptor in _open_descriptors():
        with contextlib.suppress(OSError):
            if not anonymous or _identity(descriptor).startswith(_ANONYMOUS):
                add_descriptor(descriptor)


def add_sqlite_file(database: str) -> None:
    """Notes a database file of the server, and the files that SQLite keeps beside it."""
    _files.update(f"{Path(database).resolve()}{suffix}" for suffix in _SQLITE_SUFFIXES)


def add_address(address: Address) -> None:
    """Notes an address of the server: its listening sockets, and all connections to it."""
    if address.is_unix:
        _paths.add(address.socket_path)
    else:
        _ports.add(address.port)


def announce_exec() -> None:
    """Says that the current task forks only to execute a program, which closes the descriptors itself."""
    _exec_follows.set(True)


def _block_signals() -> None:
    _masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, _blocked)


def _unblock_signals() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _masks.before)


def _let_go_of_server() -> None:
    """Runs in the child. The only thread there is the one that forked."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        if signal.getsignal(number) is not signal.SIG_IGN:  # `nohup` ignores SIGHUP for children too.
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if not _exec_follows.get():
        _replace_descriptors()
    _unblock_signals()


def _replace_descriptors() -> None:
    try:
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # No descriptor is left. Closing the server's is the next best.
        null = -1
    descriptors = [one for one in _open_descriptors() if one != null]
    listened = {port for one in descriptors for port in _listened_port(one)}
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            if not _is_servers(descriptor, listened):
                continue
            if null < 0:
                os.close(descriptor)
            else:
                os.dup2(null, descriptor, inheritable=False)
    if null >= 0:
        os.close(null)


def _is_servers(descriptor: int, listened: set[int]) -> bool:
    identity = _identity(descriptor)
    if _identities.get(descriptor) == identity or identity in _files:
        return True
    with _socket(descriptor) as sock:
        if sock is None:
            return False
        name = sock.getsockname()
        if sock.family == socket.AF_UNIX:
            return name in _paths or _peer(sock) in _paths
        if sock.family not in (socket.AF_INET, socket.AF_INET6):
            return False
        return name[1] in _ports or (name[1] not in listened and _is_grpc_client(sock))


def _is_grpc_client(sock: socket.socket) -> bool:
    """Whether a socket is the client's end of a gRPC connection.

    gRPC does not tell which sockets it opens, but only gRPC sets SO_REUSEADDR for them. Job's own channels
    are included: gRPC cannot use them in a forked process.
    """
    return (
        sock.type == socket.SOCK_STREAM
        and _peer(sock) is not None
        and sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) != 0
        and sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
        and not os.get_blocking(sock.fileno())
    )


def _listened_port(descriptor: int) -> Iterator[int]:
    with contextlib.suppress(OSError), _socket(descriptor) as sock:
        if (
            sock is not None
            and sock.family in (socket.AF_INET, socket.AF_INET6)
            and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        ):
            yield sock.getsockname()[1]


def _peer(sock: socket.socket) -> object:
    try:
        return sock.getpeername()
    except OSError:
        return None


@contextlib.contextmanager
def _socket(descriptor: int) -> Iterator[socket.socket | None]:
    """Yields the socket of a descriptor, which stays open, or None if it is not a socket."""
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError:
        yield None
        return
    try:
        yield sock
    finally:
        sock.detach()


def _open_descriptors() -> list[int]:
    table = next(table for table in _TABLES if os.path.isdir(table))
    try:
        return [number for number in map(int, os.listdir(table)) if number > _STANDARD]
    except OSError:  # No descriptor is left to read the table.
        return [number for number in range(_STANDARD + 1, _HIGHEST) if _is_open(number)]


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _identity(descriptor: int) -> str:
    """Returns a text that another open file does not have: its path, or its kind and inode."""
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except FileNotFoundError:
        status = os.fstat(descriptor)
        return f"{status.st_dev}:{status.st_ino}"
