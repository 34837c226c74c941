"""API tokens: identifies users by the SHA-256 of the token that they send.

The valid tokens are in memory, so a call costs the database nothing. A background task looks every
second whether they have changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from functools import partial
from hashlib import blake2s
from typing import Any, Protocol

import structlog

from spincycle_grpc.auth import Caller
from spincycle_grpc.errors import (
    ResourceExhaustedError,
    SpinCycleError,
    UnauthenticatedError,
    UnavailableError,
)
from spincycle_server.identity.credentials import AUTHORIZATION, Credentials
from spincycle_server.identity.identity import Identity
from spincycle_server.telemetry.limits import UNKNOWN_TOKENS, LimitUse
from spincycle_server.token_text import TOKEN_PREFIX, hash_token

logger = structlog.get_logger(__name__)

LOOK_INTERVAL = 1.0
"""Seconds between looks at the stored tokens."""

SHORTEST_PAUSE = 0.25
"""The shortest time between two looks in seconds, however many unknown tokens arrive."""

LONGEST_AGE = 3.0
"""Seconds after the last look at which tokens are refused, because they may have been revoked since.

With the time between checks of open streams, a revoked token works for at most 5 seconds.
"""

MAX_WAITING = 1000
"""The maximum number of calls with unknown tokens that wait for the next look."""

MAX_TOKEN = 200
"""The longest text that can be a token, in characters."""

HINT = f"an API token (header `Authorization: Bearer {TOKEN_PREFIX}...`)"


class StoredToken(Protocol):
    """A valid token.

    Attributes:
        name: The name of the caller.
        roles: The roles of the caller.
        expires_at: When it expires, in microseconds by the database's clock; None for never.
    """

    @property
    def name(self) -> str: ...  # noqa: D102 (the attributes are described above)
    @property
    def roles(self) -> frozenset[str]: ...  # noqa: D102 (as above)
    @property
    def expires_at(self) -> int | None: ...  # noqa: D102 (as above)


class StoredTokens(Protocol):
    """The result of a look at the stored tokens.

    Attributes:
        version: The version of the stored tokens, for the next look.
        now: The time in microseconds by the database's clock.
        tokens: The valid tokens by their SHA-256; None if they have not changed.
    """

    @property
    def version(self) -> Hashable: ...  # noqa: D102 (the attributes are described above)
    @property
    def now(self) -> int: ...  # noqa: D102 (as above)
    @property
    def tokens(self) -> Mapping[bytes, StoredToken] | None: ...  # noqa: D102 (as above)


class TokenMethod:
    """Identifies users with API tokens.

    Args:
        look: Returns the stored tokens, given the version of the last look, or None.
        clock: Returns the time in seconds. It never goes back.
    """

    hint = HINT

    def __init__(
        self,
        look: Callable[[Any], Awaitable[StoredTokens]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look_at_store = look
        self._clock = clock
        self._tokens: Mapping[bytes, StoredToken] = {}
        # The tokens that were used since the last change, by the hash of the header that had them.
        self._used: dict[bytes, tuple[Identity, int | None]] = {}
        self._version: Hashable = None
        self._stale_at = -math.inf  # when tokens are refused, unless there is another look before
        self._database_ahead = 0.0  # seconds from this process's clock to the database's
        self._is_away = False
        self._waiting = 0
        self._is_wanted = asyncio.Event()
        self._next_look = asyncio.Event()

    def limits(self) -> Iterable[LimitUse]:
        """Returns how many calls with unknown tokens may wait for the database, and how many do."""
        return (LimitUse(UNKNOWN_TOKENS, MAX_WAITING, self._waiting),)

    async def identify(self, credentials: Credentials) -> Identity | None:
        """Returns who calls; None if the call has no API token.

        Raises:
            UnauthenticatedError: The token is unknown, expired or revoked. Reason: UNKNOWN_TOKEN.
            UnavailableError: The database does not answer, so the token may have been revoked. Reason:
                TOKENS_UNAVAILABLE.
            ResourceExhaustedError: Too many calls with unknown tokens wait. Reason: TOO_MANY_UNKNOWN_TOKENS.
        """
        text = credentials.bearer_token
        if not text.startswith(TOKEN_PREFIX):
            return None
        key = hash_token(text) if len(text) <= MAX_TOKEN else b""
        token = self._valid(key)
        if token is None and key and key not in self._tokens:
            await self._wait_for_look()
            token = self._valid(key)
        if token is None:
            raise UnauthenticatedError(
                "the API token is unknown, expired or revoked: ask an operator for a new one "
                "(`spincycle token create`)",
                reason="UNKNOWN_TOKEN",
            )
        identity = Identity(Caller(token.name, token.roles), "token", partial(self._is_valid, key))
        header = credentials.header(AUTHORIZATION)
        if len(header) == len("Bearer ") + len(text):  # With any number of spaces, it would fill the memory.
            # In a busy process, BLAKE2 takes half the time of SHA-256.
            used = blake2s(header.encode("utf-8", "surrogateescape")).digest()
            self._used[used] = identity, token.expires_at
        return identity

    def recall(self, credentials: Credentials) -> Identity | None:
        """Returns who calls, if the call has a token that was used before and is still valid."""
        header = credentials.metadata.get(AUTHORIZATION, "")
        if len(header) > MAX_TOKEN:
            return None
        # As few calls as possible, because each call of a user comes here. One hash of the whole header: to
        # split it first costs as much as the rest of this method.
        used = self._used.get(blake2s(header.encode("utf-8", "surrogateescape")).digest())
        if used is None:
            return None
        identity, expires_at = used
        now = self._clock()
        if now > self._stale_at or (expires_at is not None and self._is_over(expires_at, now)):
            return None
        return identity

    async def run(self) -> None:
        """Looks at the stored tokens again and again, until cancelled."""
        while True:
            await asyncio.sleep(SHORTEST_PAUSE)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_INTERVAL - SHORTEST_PAUSE):
                    await self._is_wanted.wait()
            await self.look()

    async def look(self) -> None:
        """Looks at the stored tokens. A failure is logged, and the last tokens stay for a while."""
        self._is_wanted.clear()
        waited_for, self._next_look = self._next_look, asyncio.Event()
        began = self._clock()
        try:
            found = await self._look_at_store(self._version)
        except SpinCycleError as error:
            if not self._is_away:
                logger.warning("API tokens cannot be checked", error=error.message)
            self._is_away = True
        else:
            if found.tokens is not None:
                self._tokens = found.tokens
                self._used.clear()
            self._version = found.version
            self._stale_at = began + LONGEST_AGE
            self._database_ahead = found.now / 1e6 - began
            self._is_away = False
        finally:
            waited_for.set()

    def _valid(self, key: bytes) -> StoredToken | None:
        now = self._clock()
        if now > self._stale_at:
            raise UnavailableError(
                "API tokens cannot be checked now, because the database does not answer: try again later",
                reason="TOKENS_UNAVAILABLE",
            )
        token = self._tokens.get(key)
        return None if token is None or self._is_over(token.expires_at, now) else token

    def _is_over(self, expires_at: int | None, now: float) -> bool:
        return expires_at is not None and expires_at <= (now + self._database_ahead) * 1e6

    def _is_valid(self, key: bytes) -> bool:
        return self._valid(key) is not None

    async def _wait_for_look(self) -> None:
        """Waits until a look that begins after now has ended. All calls that wait share it."""
        if self._waiting >= MAX_WAITING:
            raise ResourceExhaustedError(
                "too many calls with unknown API tokens: try again later", reason="TOO_MANY_UNKNOWN_TOKENS"
            )
        self._waiting += 1
        self._is_wanted.set()
        try:
            async with asyncio.timeout(LONGEST_AGE):
                await self._next_look.wait()
        except TimeoutError:
            pass  # The tokens are too old by now, and the next check says so.
        finally:
            self._waiting -= 1


class ElsewhereTokenMethod:
    """Refuses API tokens on a server that has no database, and says where they are accepted."""

    hint = "an API token to the Request Manager instead, because Job Runners cannot check API tokens"

    async def identify(self, credentials: Credentials) -> Identity | None:
        """Returns None if the call has no API token.

        Raises:
            UnauthenticatedError: The call has an API token. Reason: TOKENS_ELSEWHERE.
        """
        if not credentials.bearer_token.startswith(TOKEN_PREFIX):
            return None
        raise UnauthenticatedError(
            "a Job Runner cannot check API tokens, because it has no database: ask the Request Manager "
            "instead (its `GET /api/v1/requests` and `spinc ps` show what runs)",
            reason="TOKENS_ELSEWHERE",
        )
