"""The identity of a caller, as authentication plugins return it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """The identity of a caller. Without authentication both fields are empty.

    Attributes:
        name: The user's name. The server stores it as the user of the requests that the caller creates.
        roles: The caller's roles. Access lists of request specs name the roles that they allow.
    """

    name: str = ""
    roles: frozenset[str] = frozenset()
