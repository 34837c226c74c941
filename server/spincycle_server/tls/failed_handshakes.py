"""Logs why clients cannot open HTTP connections: TLS against plain text, and certificates that are refused.

gRPC tells a server nothing about this.
"""

from __future__ import annotations

import ssl
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import structlog

logger = structlog.get_logger(__name__)

LOG_INTERVAL = 60.0
"""Seconds between two log lines about the same fault. The second one counts the clients in between."""

TLS_TO_PLAIN_TEXT = "clients used TLS, but this address is plain HTTP: set server.tls.cert_file and .key_file"

_FAULTS = {
    "HTTP_REQUEST": "clients sent plain HTTP, but this address uses TLS: they must use https",
    "WRONG_VERSION_NUMBER": "clients did not send TLS, but this address uses TLS",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "clients sent no certificate, but server.tls.client_auth is require",
    "CERTIFICATE_VERIFY_FAILED": "client certificates were refused: {detail}",
    "ALERT_UNKNOWN_CA": "clients do not trust the CA of this server's certificate",
    "ALERT_CERTIFICATE_EXPIRED": "clients say that this server's certificate has expired",
    "ALERT_BAD_CERTIFICATE": "clients refuse this server's certificate",
    "ALERT_CERTIFICATE_UNKNOWN": "clients refuse this server's certificate",
}
"""The faults by the end of OpenSSL's reasons."""


class FailedHandshakes:
    """Logs faults, each at most once in `LOG_INTERVAL`.

    Args:
        now: Returns the time in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._logged_at: dict[str, float] = {}
        self._counts: Counter[str] = Counter()

    def add(self, fault: str) -> None:
        """Counts a client that could not connect."""
        self._counts[fault] += 1
        now = self._now()
        if now - self._logged_at.get(fault, -LOG_INTERVAL) < LOG_INTERVAL:
            return
        self._logged_at[fault] = now
        logger.warning("clients could not connect", fault=fault, clients=self._counts.pop(fault))

    def add_error(self, error: ssl.SSLError) -> None:
        """Counts a client with which a handshake failed. Clients that only go away do not count."""
        reason = getattr(error, "reason", None) or ""
        for end, fault in _FAULTS.items():
            if reason.endswith(end):
                self.add(fault.format(detail=getattr(error, "verify_message", "")))
                return


FAILED_HANDSHAKES = FailedHandshakes()
"""The handshakes of this process."""


class ObservedObject(ssl.SSLObject):
    """The TLS of one connection, which reports a handshake that fails."""

    def do_handshake(self) -> None:
        """Continues the handshake."""
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            FAILED_HANDSHAKES.add_error(error)
            raise

    def read(self, *arguments: Any) -> Any:
        """Reads. With TLS 1.3, a client refuses the server's certificate after the server's handshake."""
        try:
            return super().read(*arguments)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            FAILED_HANDSHAKES.add_error(error)
            raise
