"""Reads the API tokens that are valid now, for servers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import func, or_, select
from sqlalchemy.engine import Connection

from spincycle_server.database.clock import now_expression
from spincycle_server.store.schema import api_tokens


class ValidToken(NamedTuple):
    """An API token that is neither revoked nor expired.

    Attributes:
        name: Its name, which is also the name of the caller.
        roles: The roles of the caller.
        expires_at: When it expires, in microseconds by the database's clock; None for never.
    """

    name: str
    roles: frozenset[str]
    expires_at: int | None


class TokensVersion(NamedTuple):
    """Changes whenever a token is created or revoked, because ids are never reused.

    Attributes:
        total: The number of tokens.
        revoked: The number of revoked tokens.
        newest: The id of the newest token; 0 without one.
    """

    total: int
    revoked: int
    newest: int


class TokensLook(NamedTuple):
    """The result of a look at the tokens.

    Attributes:
        version: The version of the tokens.
        now: The time in microseconds by the database's clock.
        tokens: The valid tokens by their SHA-256; None if the version is as before.
    """

    version: TokensVersion
    now: int
    tokens: Mapping[bytes, ValidToken] | None


def look_at_tokens(connection: Connection, seen: TokensVersion | None) -> TokensLook:
    """Returns the valid tokens if they have changed.

    Args:
        connection: The database.
        seen: The version of an earlier look; None for the first look.
    """
    row = connection.execute(
        select(
            func.count(),
            func.count(api_tokens.c.revoked_at),
            func.max(api_tokens.c.token_id),
            now_expression(connection),
        ).select_from(api_tokens)
    ).one()
    version, now = TokensVersion(int(row[0]), int(row[1]), int(row[2] or 0)), int(row[3])
    return TokensLook(version, now, None if version == seen else _valid_tokens(connection, now))


def _valid_tokens(connection: Connection, now: int) -> Mapping[bytes, ValidToken]:
    expires_at = api_tokens.c.expires_at
    query = select(api_tokens.c.token_hash, api_tokens.c.name, api_tokens.c.roles, expires_at).where(
        api_tokens.c.revoked_at.is_(None), or_(expires_at.is_(None), expires_at > now)
    )
    return {
        bytes(row.token_hash): ValidToken(row.name, frozenset(json.loads(row.roles)), row.expires_at)
        for row in connection.execute(query)
    }
