"""The text of API tokens."""

from __future__ import annotations

import hashlib
import re
import secrets

TOKEN_PREFIX = "spincycle_"  # noqa: S105 (what all tokens begin with)
"""The start of every token, by which people and scanners of leaked secrets recognize it."""

_TOKEN = re.compile(rf"{TOKEN_PREFIX}[A-Za-z0-9_-]{{43}}", re.ASCII)


def new_token() -> str:
    """Returns a new token with 256 random bits."""
    return TOKEN_PREFIX + secrets.token_urlsafe(32)


def is_token(text: str) -> bool:
    """Whether a text has the form of a token, so that no message may show it."""
    return _TOKEN.fullmatch(text) is not None


def hash_token(token: str) -> bytes:
    """Returns the SHA-256 of a token. It needs no slow hash, because nobody can guess 256 random bits."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
