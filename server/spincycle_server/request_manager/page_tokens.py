"""Page tokens: the place where the next page begins, as opaque text.

A token has a check value of the method, of the fields that must stay the same, and of the place. So a token
that was changed, or is used with another filter, is refused. It is not a secret and grants nothing: each page
checks what the caller may see.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable
from typing import TypeVar

import orjson

from spincycle_grpc.errors import InvalidArgumentError

LONGEST_TOKEN = 1000
"""Characters of a token that are looked at. Tokens of the server are shorter."""

_CHECK_BYTES = 12
_Place = TypeVar("_Place")


def page_token(scope: bytes, place: tuple[str | int, ...]) -> str:
    """Returns the token of the page behind a place.

    Args:
        scope: The method and the fields of the call that must stay the same.
        place: The place of the last item before the page.
    """
    text = orjson.dumps([*place])
    return base64.urlsafe_b64encode(_check_value(scope, text) + text).decode().rstrip("=")


def place_of(token: str, scope: bytes, read: Callable[..., _Place]) -> _Place | None:
    """Returns the place that a token stands for; None for an empty token.

    Args:
        token: The token.
        scope: The scope of the call.
        read: Makes a place from its values. Raises TypeError or ValueError if they are not valid.

    Raises:
        InvalidArgumentError: The token is malformed, or is not one of this scope. Reason: BAD_PAGE_TOKEN.
    """
    if not token:
        return None
    try:
        if len(token) > LONGEST_TOKEN or not token.isascii():
            raise ValueError("not a token")
        data = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        check, text = data[:_CHECK_BYTES], data[_CHECK_BYTES:]
        if check != _check_value(scope, text):
            raise ValueError("another scope")
        return read(*orjson.loads(text))
    except (TypeError, ValueError, binascii.Error) as error:
        raise InvalidArgumentError(
            "the page token is not one of this list: send the next_page_token of the previous response "
            "unchanged, with the same other fields",
            reason="BAD_PAGE_TOKEN",
            field="page_token",
        ) from error


def is_whole(value: object, limit: int) -> bool:
    """Whether a value of a place is a whole number from 0, below a limit. A forged token may have others."""
    return type(value) is int and 0 <= value < limit


def checked_page_size(page_size: int) -> int:
    """Returns a page size that is not negative.

    Raises:
        InvalidArgumentError: It is negative. Reason: BAD_PAGE_SIZE.
    """
    if page_size < 0:
        raise InvalidArgumentError(
            f"the page size is {page_size}: send 0 or a positive number",
            reason="BAD_PAGE_SIZE",
            field="page_size",
        )
    return page_size


def _check_value(scope: bytes, text: bytes) -> bytes:
    size = len(scope).to_bytes(8, "big")
    return hashlib.sha256(size + scope + text).digest()[:_CHECK_BYTES]
