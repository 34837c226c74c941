"""Seals what a browser keeps for this server: encrypted, and protected against changes."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
KEY_ID_BYTES = 8

_NONCE_BYTES = 12
_HEAD = KEY_ID_BYTES + _NONCE_BYTES


class SealingKey(NamedTuple):
    """A key, and the id by which sealed texts name it."""

    key_id: bytes
    key: bytes


class Sealer:
    """Seals texts with AES-256-GCM.

    A sealed text has the id of its key, a random nonce, and the encrypted text. With one key, 2^32 texts may
    be sealed with random nonces; a key is used for a month at most.

    Args:
        newest: Returns the key to seal with.
        find: Returns the key with an id; None if there is none any longer.
    """

    def __init__(
        self,
        newest: Callable[[], Awaitable[SealingKey]],
        find: Callable[[bytes], Awaitable[SealingKey | None]],
    ) -> None:
        self._newest = newest
        self._find = find

    async def seal(self, purpose: str, data: bytes) -> str:
        """Returns sealed data as text of A-Z a-z 0-9 - _.

        Args:
            purpose: What it is for. It can be opened for this purpose alone.
            data: The data.
        """
        key = await self._newest()
        nonce = os.urandom(_NONCE_BYTES)
        sealed = AESGCM(key.key).encrypt(nonce, data, _bound(purpose, key.key_id))
        return base64.urlsafe_b64encode(key.key_id + nonce + sealed).decode().rstrip("=")

    async def unseal(self, purpose: str, text: str) -> bytes | None:
        """Returns the data of a sealed text; None if this installation did not seal it for the purpose."""
        try:
            data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (ValueError, binascii.Error):
            return None
        if len(data) < _HEAD:
            return None
        key = await self._find(data[:KEY_ID_BYTES])
        if key is None:
            return None
        try:
            return AESGCM(key.key).decrypt(
                data[KEY_ID_BYTES:_HEAD], data[_HEAD:], _bound(purpose, key.key_id)
            )
        except InvalidTag:
            return None


def _bound(purpose: str, key_id: bytes) -> bytes:
    return b"spincycle 1 " + key_id + purpose.encode()
