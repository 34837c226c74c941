"""A DNS server that gives each name two addresses, because tests cannot change the names of a machine."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

ADDRESSES = ("127.0.0.1", "127.0.0.2")

_ANSWER = 0x8180
_TYPE_A = 1
_POINTER_TO_QUESTION = 0xC00C


@contextlib.contextmanager
def name_server() -> Iterator[str]:
    """Runs the server, and yields its address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=_serve, args=(udp,), daemon=True)
        thread.start()
        host, port = udp.getsockname()
        try:
            yield f"{host}:{port}"
        finally:
            udp.sendto(b"", (host, port))  # The end.
            thread.join()


def _serve(udp: socket.socket) -> None:
    while True:
        query, client = udp.recvfrom(4096)
        if not query:
            return
        udp.sendto(_answer(query), client)


def _answer(query: bytes) -> bytes:
    """Returns the answer to a query with one question: the addresses for type A, nothing for other types."""
    end = query.index(0, 12) + 5  # The name, its final 0, the type and the class.
    (kind,) = struct.unpack("!H", query[end - 4 : end - 2])
    addresses = ADDRESSES if kind == _TYPE_A else ()
    header = query[:2] + struct.pack("!HHHHH", _ANSWER, 1, len(addresses), 0, 0)
    records = [
        struct.pack("!HHHIH", _POINTER_TO_QUESTION, _TYPE_A, 1, 1, 4) + socket.inet_aton(address)
        for address in addresses
    ]
    return header + query[12:end] + b"".join(records)
