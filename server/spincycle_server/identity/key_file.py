"""The file with the key that the servers of one installation share."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from pathlib import Path

import structlog

from spincycle_grpc.errors import InvalidArgumentError

logger = structlog.get_logger(__name__)

MIN_KEY_LENGTH = 32
"""The smallest number of characters of a key."""

_CHECK_INTERVAL = 1.0
"""Seconds between checks whether the file has changed."""


def new_key() -> str:
    """Returns a random key of 256 bits."""
    return secrets.token_urlsafe(32)


class KeyFile:
    """Reads the keys, one a line, and reads them again when the file changes.

    A server sends the first key and accepts all of them. So a key can be replaced without an
    interruption: add the new key as the second line everywhere, make it the first line everywhere, and remove
    the old key.

    Args:
        path: The file.

    Raises:
        InvalidArgumentError: The file cannot be read, or a key is too short. Reason: BAD_CONFIG.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._changed_at = self._modified()  # Read first, so that a change in between is noticed later.
        self._keys = self._read()
        self._checked_at = time.monotonic()

    def __call__(self) -> Sequence[str]:
        """Returns the keys. If the file has become unusable, the last usable keys stay valid."""
        now = time.monotonic()
        if now - self._checked_at >= _CHECK_INTERVAL:
            self._checked_at = now
            self._refresh()
        return self._keys

    def _refresh(self) -> None:
        try:
            changed_at = self._modified()
            if changed_at != self._changed_at:
                self._keys = self._read()
                self._changed_at = changed_at
                logger.info("cluster keys reloaded", keys=len(self._keys))
        except InvalidArgumentError as error:
            logger.warning("cluster keys cannot be reloaded, the last keys stay valid", error=str(error))

    def _modified(self) -> int:
        try:
            return self._path.stat().st_mtime_ns
        except OSError as error:
            raise _invalid(f"cannot read {self._path}: {error.strerror}") from error

    def _read(self) -> Sequence[str]:
        try:
            lines = self._path.read_text(encoding="ascii").split("\n")
        except OSError as error:
            raise _invalid(f"cannot read {self._path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise _invalid(f"{self._path} must contain ASCII characters only") from error
        keys = tuple(line.strip() for line in lines if line.strip())
        if not keys or any(len(key) < MIN_KEY_LENGTH or not key.isprintable() for key in keys):
            raise _invalid(
                f"{self._path} must have one key a line, each of at least {MIN_KEY_LENGTH} characters: "
                "create one with `openssl rand -hex 32`"
            )
        return keys


def _invalid(message: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"option cluster.key_file: {message}", reason="BAD_CONFIG")
