"""What a client may do to the HTTP server."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """The limits of connections. Times are in seconds.

    Attributes:
        header_timeout: How long the first line and the headers of a request may take to arrive. Also how long
            the handshake of TLS may take.
        read_timeout: How long the body of a request may take to arrive if the connection itself refuses the
            request.
        idle_timeout: How long a connection may be idle between requests, or stall while it reads an answer.
        max_connections: How many connections there may be. Further connections get 503.
    """

    header_timeout: float = 10.0
    read_timeout: float = 30.0
    idle_timeout: float = 75.0
    max_connections: int = 4000
