"""The ports that servers of tests use when a test must know the port before the server listens.

A test that kills its server and starts it again needs the same port twice. So these ports are below those
that systems give to outgoing connections and to servers that ask for port 0. Otherwise another program may be
given the port meanwhile.
"""

from __future__ import annotations

import itertools
import os
import random
import socket

_FIRST, _SLICES, _SLICE = 10_000, 11, 2_000
"""The ports from 10,000 to 31,999: a slice for each process of tests. Linux gives away ports from 32,768."""
_BLOCK = 10
"""A block of ports for HTTP stands before a block for gRPC, because gRPC's default is HTTP's port plus 10."""


def free_port() -> int:
    """Returns a free port P for HTTP. Port P + 10, where the server listens for gRPC, is also free.

    A process of tests returns a port again only after all others of its slice.
    """
    while True:
        number = next(_numbers) % (_SLICE // 2)
        port = _start + number // _BLOCK * 2 * _BLOCK + number % _BLOCK
        if _is_free(port) and _is_free(port + _BLOCK):
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


_worker = os.environ.get("PYTEST_XDIST_WORKER", "")
_start = _FIRST + (int(_worker.removeprefix("gw")) % (_SLICES - 1) + 1 if _worker else 0) * _SLICE
_numbers = itertools.count(random.randrange(_SLICE // 2))  # Two runs of the tests may share the machine.
