"""The addresses of workers: taken once by their supervisor, so that an address in use is one clear error."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator

from spincycle_grpc.errors import UnavailableError
from spincycle_server.config import ConfigError
from spincycle_server.listening import Address

_UNUSABLE = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
"""Errors of one of the addresses of a host name, for example of IPv6 where there is none."""


@contextlib.contextmanager
def reserved_port(address: Address, option: str) -> Iterator[Address]:
    """Takes the port of a gRPC address, on which processes of this user may then listen with SO_REUSEPORT.

    No other server can take the port meanwhile, not even between two workers: the port is bound without
    SO_REUSEPORT, which fails if somebody listens there, and is shared only after that.

    Args:
        address: The address. With port 0, the system chooses a port.
        option: The option that sets it, for errors.

    Yields:
        The address with its port.

    Raises:
        UnavailableError: The address cannot be used. Reason: ADDRESS_IN_USE.
        ConfigError: It is a unix socket, which processes cannot share.
    """
    if address.is_unix:
        raise ConfigError(
            f"option {option}: several workers cannot share the unix socket {address.socket_path}: "
            "use host:port, or set server.workers to 1",
            reason="BAD_CONFIG",
        )
    with contextlib.ExitStack() as stack:
        port, problem = address.port, None
        taken = 0
        for family, host in _addresses_of(address):
            holder = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            try:
                if family is socket.AF_INET6:
                    holder.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                holder.setsockopt(
                    socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
                )  # Closed connections do not count.
                holder.bind((host, port))
            except OSError as error:
                problem = error
                if error.errno in _UNUSABLE:
                    continue
                break
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            # From now on, another server that reserves the port fails, although nobody listens yet.
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
            port = holder.getsockname()[1]
            taken += 1
            problem = None if problem is None or problem.errno in _UNUSABLE else problem
        if problem is not None or not taken:
            raise _cannot_listen(address, problem, option)
        yield Address(address.host, port)


def _addresses_of(address: Address) -> list[tuple[socket.AddressFamily, str]]:
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError:
        return []
    return list(dict.fromkeys((family, str(where[0])) for family, _, _, _, where in found))


def _cannot_listen(address: Address, error: OSError | None, option: str) -> UnavailableError:
    if error is None:
        why = "it is not an address of this machine"
    elif error.errno == errno.EADDRINUSE:
        why = "the address is in use"
    else:
        why = os.strerror(error.errno or 0).lower()
    return UnavailableError(f"cannot listen on {address}: {why} (option {option})", reason="ADDRESS_IN_USE")
