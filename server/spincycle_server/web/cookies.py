"""Reads and writes cookies. A long value is split, because browsers keep at most 4,096 bytes in a cookie."""

from __future__ import annotations

from collections.abc import Iterable

from spincycle_server.gateway.errors import Header

MAX_PIECE = 3_600
"""Characters of a value in one cookie. Its name and attributes need room too."""

MAX_PIECES = 6
"""The maximum number of cookies for one value."""


class Cookie:
    """A cookie of this server.

    Over TLS its name has the prefix `__Host-`, so that no other host of the domain can set it.

    Args:
        name: The name.
        same_site: "Strict" or "Lax".
    """

    def __init__(self, name: str, same_site: str) -> None:
        self._name = name
        self._same_site = same_site

    def read(self, header: str, *, is_secure: bool) -> str:
        """Returns the value in a Cookie header; "" if it has none.

        Args:
            header: The header.
            is_secure: Whether the browser uses TLS.
        """
        if self._name not in header:
            return ""
        found: dict[str, str] = {}
        for part in header.split(";"):
            name, _, value = part.strip().partition("=")
            found.setdefault(name, value)
        pieces: list[str] = []
        for name in self._names(is_secure=is_secure):
            if name not in found:
                break
            pieces.append(found[name])
        return "".join(pieces)

    def write(self, value: str, max_age: int, *, is_secure: bool) -> list[Header]:
        """Returns the headers that set the value for some seconds; "" deletes the cookie.

        Cookies of an earlier, longer value are deleted.

        Raises:
            ValueError: The value is too long.
        """
        pieces = [value[start : start + MAX_PIECE] for start in range(0, len(value), MAX_PIECE)]
        names = list(self._names(is_secure=is_secure))
        if len(pieces) > len(names):
            raise ValueError("the value is too long for cookies")
        pieces += [""] * (len(names) - len(pieces))
        return [
            self._header(name, piece, max_age if piece else 0, is_secure)
            for name, piece in zip(names, pieces, strict=True)
        ]

    def _names(self, *, is_secure: bool) -> Iterable[str]:
        prefix = "__Host-" if is_secure else ""
        return [f"{prefix}{self._name}{f'-{number}' if number else ''}" for number in range(MAX_PIECES)]

    def _header(self, name: str, value: str, max_age: int, is_secure: bool) -> Header:
        secure = "; Secure" if is_secure else ""
        text = f"{name}={value}; Path=/; Max-Age={max_age}; HttpOnly; SameSite={self._same_site}{secure}"
        return b"set-cookie", text.encode()
