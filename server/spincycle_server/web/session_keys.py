"""The keys that seal sessions. All Request Managers of a database share them, and a restart keeps them.

A key opens what browsers keep, but grants nothing: a session contains a token, which is checked with each
call. So whoever reads the database cannot sign in with a key alone.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from spincycle_server.web.sealing import KEY_BYTES, KEY_ID_BYTES, SealingKey

ROTATION = 30 * 86_400.0
"""Seconds after which a new key seals."""

SHORTEST_PAUSE = 0.5
"""The shortest time between two looks at the stored keys in seconds, however many unknown keys are named."""

LONGEST_AGE = 3600.0
"""Seconds after which the stored keys are read again, so that a server notices a newer key."""


class StoredKey(Protocol):
    """A stored key.

    Attributes:
        key_id: Its id.
        key: The key.
        age: Seconds since the key was stored. The database's clock counts.
    """

    @property
    def key_id(self) -> bytes: ...  # noqa: D102 (the attributes are described above)
    @property
    def key(self) -> bytes: ...  # noqa: D102 (as above)
    @property
    def age(self) -> float: ...  # noqa: D102 (as above)


class SessionKeys:
    """Reads the stored keys, and adds a new one when the newest is too old.

    Args:
        read: Returns the stored keys, the newest first.
        add: Stores a key, and deletes those that are too old to open anything.
        clock: Returns the time in seconds. It never goes back.
    """

    def __init__(
        self,
        read: Callable[[], Awaitable[Sequence[StoredKey]]],
        add: Callable[[bytes, bytes], Awaitable[None]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read_stored = read
        self._add = add
        self._clock = clock
        self._lock = asyncio.Lock()
        self._keys: dict[bytes, SealingKey] = {}
        self._newest: SealingKey | None = None
        self._rotates_at = -math.inf
        self._read_at = -math.inf

    async def newest(self) -> SealingKey:
        """Returns the key to seal with.

        Raises:
            UnavailableError: The database does not answer.
        """
        async with self._lock:
            if self._newest is None or self._clock() - self._read_at > LONGEST_AGE:
                await self._read()
            if self._newest is None or self._clock() >= self._rotates_at:
                await self._add(os.urandom(KEY_ID_BYTES), os.urandom(KEY_BYTES))
                await self._read()
            assert self._newest is not None  # noqa: S101 (it was just stored)
            return self._newest

    async def find(self, key_id: bytes) -> SealingKey | None:
        """Returns the key with an id; None if there is none.

        Another Request Manager may have stored an unknown key a moment ago. So an unknown key waits for a
        read that begins after the call. All calls that wait share it.

        Raises:
            UnavailableError: The key is unknown, and the database does not answer.
        """
        if key_id not in self._keys:
            called_at = self._clock()
            async with self._lock:
                if key_id not in self._keys and self._read_at < called_at:
                    await asyncio.sleep(self._read_at + SHORTEST_PAUSE - called_at)
                    await self._read()
        return self._keys.get(key_id)

    async def _read(self) -> None:
        began = self._clock()
        stored = await self._read_stored()
        self._keys = {one.key_id: SealingKey(one.key_id, one.key) for one in stored}
        self._newest = self._keys[stored[0].key_id] if stored else None
        self._rotates_at = began + ROTATION - stored[0].age if stored else -math.inf
        self._read_at = began
