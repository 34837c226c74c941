"""Sessions of browsers. A session is the token of its user, sealed in a cookie; no server keeps anything.

So what holds for a token holds for the session: if it is revoked or expires, the session has ended.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable
from typing import NamedTuple

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_server.gateway.errors import Header
from spincycle_server.web.cookies import Cookie
from spincycle_server.web.sealing import Sealer

MAX_TOKEN = 16 * 1024
"""The longest token of a session in characters. A longer one is not sealed."""

SESSION_COOKIE = Cookie("spincycle-session", "Strict")

_PURPOSE = "session"
_MAX_OPENED = MAX_TOKEN + 1024


class Session(NamedTuple):
    """The session of a browser.

    Attributes:
        token: The token of its user.
        expires_at: When it ends, in seconds since the Unix epoch.
    """

    token: str
    expires_at: float


class Sessions:
    """Seals and opens sessions.

    Args:
        sealer: Seals them.
        lifetime: Seconds after which a session ends, even if its token is still valid.
        clock: Returns the time in seconds since the Unix epoch.
    """

    def __init__(self, sealer: Sealer, lifetime: float, clock: Callable[[], float] = time.time) -> None:
        self._sealer = sealer
        self._lifetime = lifetime
        self._clock = clock

    async def begin(
        self, token: str, *, expires_at: float | None = None, is_secure: bool
    ) -> tuple[Session, list[Header]]:
        """Returns a new session, and the headers that give it to the browser.

        Args:
            token: The token of its user, which was checked.
            expires_at: When the token expires, in seconds since the Unix epoch; None if that is unknown.
            is_secure: Whether the browser uses TLS.

        Raises:
            InvalidArgumentError: The token is too long for cookies. Reason: SESSION_TOO_LARGE.
            UnavailableError: The database does not answer.
        """
        if len(token) > MAX_TOKEN:
            raise _too_large()
        now = self._clock()
        ends = now + self._lifetime
        session = Session(token, ends if expires_at is None else min(ends, expires_at))
        sealed = await self._sealer.seal(_PURPOSE, zlib.compress(json.dumps(session).encode(), 9))
        try:
            seconds = max(1, int(session.expires_at - now))
            return session, SESSION_COOKIE.write(sealed, seconds, is_secure=is_secure)
        except ValueError as error:
            raise _too_large() from error

    async def open(self, cookie_header: str, *, is_secure: bool) -> Session | None:
        """Returns the session of a call; None if it has none that is still valid.

        Raises:
            UnavailableError: The database does not answer.
        """
        sealed = SESSION_COOKIE.read(cookie_header, is_secure=is_secure)
        data = await self._sealer.unseal(_PURPOSE, sealed) if sealed else None
        if data is None:
            return None
        session = Session(*json.loads(zlib.decompressobj().decompress(data, _MAX_OPENED)))
        return session if self._clock() < session.expires_at else None

    def seconds_left(self, session: Session) -> float:
        """Returns how long a session still lasts."""
        return session.expires_at - self._clock()


def _too_large() -> InvalidArgumentError:
    return InvalidArgumentError(
        "the token is too long for the cookies of a browser: let the OIDC provider put fewer claims into it",
        reason="SESSION_TOO_LARGE",
    )
