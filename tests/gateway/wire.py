"""HTTP over plain sockets, for requests that no client library would send."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from tests.limits import ANSWER


@dataclass(frozen=True)
class Answer:
    """One HTTP answer: status, headers by names in lower case, and body."""

    status: int
    headers: dict[str, str]
    body: bytes


class Connection:
    """A socket to a server."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=ANSWER)
        self._received = b""

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self, method: str = "GET") -> Answer:
        """Returns the next answer. `method` is the method of its request."""
        while b"\r\n\r\n" not in self._received:
            self._receive()
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(": ")
            assert name.lower() not in headers, f"two headers {name}"
            headers[name.lower()] = value
        status = int(first.split(" ")[1])
        length = 0 if method == "HEAD" or status in (100, 204, 304) else int(headers["content-length"])
        while len(self._received) < length:
            self._receive()
        body, self._received = self._received[:length], self._received[length:]
        return Answer(status, headers, body)

    def is_ended(self) -> bool:
        """Waits for more bytes. Returns whether the server closed the connection instead, without a reset."""
        return not self._received and not self.socket.recv(1)

    def _receive(self) -> None:
        data = self.socket.recv(65536)
        assert data, f"the connection ended after {self._received!r}"
        self._received += data


def request(method: str, path: str, *headers: str, body: bytes = b"") -> bytes:
    """Returns the bytes of a request. It has Content-Length if it has a body."""
    lines = [f"{method} {path} HTTP/1.1", "Host: here", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


JSON = "Content-Type: application/json"
