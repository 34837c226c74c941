"""The text of API tokens."""

from __future__ import annotations

import hashlib
import secrets

TOKEN_PREFIX = "spincycle_"  # noqa: S105 (what all tokens begin with)
"""The start of every token, by which people and scanners of leaked secrets recognize it."""


def new_token() -> str:
    """Returns a new token with 256 random bits."""
    return TOKEN_PREFIX + secrets.token_urlsafe(32)


def hash_token(token: str) -> bytes:
    """Returns the SHA-256 of a token. It needs no slow hash, because nobody can guess 256 random bits."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
