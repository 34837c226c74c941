"""A receiver of webhooks: a real HTTP or HTTPS server in a thread, which answers as told."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Webhook:
    """What a receiver got.

    Attributes:
        path: The path, with its query.
        headers: The headers, with names in lower case.
        body: The body.
    """

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def content(self) -> Any:
        """The body as parsed JSON."""
        return json.loads(self.body)


@dataclass
class Receiver:
    """A receiver.

    Attributes:
        url: Its URL.
        answers: The status and the headers of the next answers; then it answers 200.
        received: What it got.
        stalls: Set while it does not answer.
    """

    url: str = ""
    answers: list[tuple[int, Mapping[str, str]]] = field(default_factory=list)
    received: list[Webhook] = field(default_factory=list)
    stalls: threading.Event = field(default_factory=threading.Event)
    may_answer: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, webhook: Webhook) -> tuple[int, Mapping[str, str]]:
        """Keeps what came, and returns the answer."""
        with self.lock:
            self.received.append(webhook)
            answer = self.answers.pop(0) if self.answers else (200, {})
        if self.stalls.is_set():
            self.may_answer.wait()
        return answer

    @property
    def contents(self) -> list[Any]:
        """The parsed bodies so far."""
        with self.lock:
            return [one.content for one in self.received]


@contextlib.contextmanager
def receiving(context: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """Runs a receiver on a free port of the loopback interface, with TLS if there is a context."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, more = receiver.take(Webhook(self.path, headers, body))
            with contextlib.suppress(OSError):  # The sender has given up.
                self.send_response(status)
                for name, value in more.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    receiver.url = f"{'http' if context is None else 'https'}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.may_answer.set()
        server.shutdown()
        server.server_close()
        thread.join()
