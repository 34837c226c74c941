"""API tokens: creates, lists and revokes them. Servers notice a change within seconds.

Each change has an event in the audit log, in the same transaction.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import and_, delete, func, insert, or_, select, update
from sqlalchemy.engine import Connection, Row

from spincycle_grpc.duration import format_duration
from spincycle_grpc.errors import ConflictError, InvalidArgumentError, NotFoundError, ResourceExhaustedError
from spincycle_grpc.v1.audit_pb2 import AuditEvent
from spincycle_server.database.clock import database_now
from spincycle_server.maintenance.audit import command_event
from spincycle_server.maintenance.operator_database import OperatorDatabase
from spincycle_server.store.audit import record_event
from spincycle_server.store.schema import MAX_TOKEN_NAME, api_tokens

MAX_TOKENS = 10_000
"""The maximum number of active tokens, because each server keeps all of them in memory."""

MAX_ROLES = 100
"""The maximum number of roles of one token."""

MAX_ROLE = 100
"""The longest role, in characters."""

KEPT = 400 * 86_400_000_000
"""Microseconds for which tokens are kept after they were revoked or have expired: more than a year."""

_NAME = re.compile(rf"[A-Za-z][A-Za-z0-9._@+-]{{0,{MAX_TOKEN_NAME - 1}}}", re.ASCII)


class ApiToken(NamedTuple):
    """An API token. Only its SHA-256 is stored. Times are in microseconds by the database's clock.

    Attributes:
        token_id: Its number.
        name: Its name, which is also the name of the caller.
        roles: The roles of the caller, sorted.
        created_at: When it was created.
        expires_at: When it expires; None for never.
        revoked_at: When it was revoked; None if it was not.
    """

    token_id: int
    name: str
    roles: Sequence[str]
    created_at: int
    expires_at: int | None
    revoked_at: int | None

    def state(self, now: int) -> str:
        """Returns "active", "expired" or "revoked".

        Args:
            now: The time by the database's clock.
        """
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"


class ApiTokens(OperatorDatabase):
    """The API tokens in a database."""

    def create(self, name: str, roles: Collection[str], token_hash: bytes, lifetime: int | None) -> ApiToken:
        """Stores a new token. Deletes tokens that ended long ago.

        Args:
            name: The name, which no other active token may have.
            roles: The roles of the caller.
            token_hash: The SHA-256 of the token.
            lifetime: Microseconds until it expires; None for never.

        Raises:
            InvalidArgumentError: The name or a role is invalid. Reason: BAD_TOKEN.
            ConflictError: Another active token has the name. Reason: TOKEN_EXISTS.
            ResourceExhaustedError: There are too many active tokens. Reason: TOO_MANY_TOKENS.
        """
        _check(name, roles)
        roles = sorted(set(roles))
        ends = "never expires" if lifetime is None else f"expires after {format_duration(lifetime * 1000)}"
        event = command_event(
            "spincycle token create", f"token {name}: {ends}, roles: {', '.join(roles) or 'none'}"
        )
        add = partial(_add, name=name, roles=roles, token_hash=token_hash, lifetime=lifetime, event=event)
        return self._write(add)

    def all(self) -> Sequence[ApiToken]:
        """Returns all tokens, also those that ended in the last 400 days, oldest first."""
        return self._read(_all)

    def find(self, name_or_id: str) -> ApiToken:
        """Returns the token with a number, or the active or expired token with a name.

        Raises:
            NotFoundError: There is none. Reason: TOKEN_NOT_FOUND.
        """
        return self._read(partial(_find, name_or_id=name_or_id))

    def find_hash(self, token_hash: bytes) -> ApiToken:
        """Returns the token with a SHA-256.

        Raises:
            NotFoundError: There is none. Reason: TOKEN_NOT_FOUND.
        """
        return self._read(partial(_find_hash, token_hash=token_hash))

    def revoke(self, token_id: int) -> None:
        """Revokes a token, unless it is revoked already."""
        event = command_event("spincycle token revoke")
        self._write(partial(_revoke, token_id=token_id, event=event))


def _check(name: str, roles: Collection[str]) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidArgumentError(
            f"the name {name[:200]!r} must start with a letter and have at most {MAX_TOKEN_NAME} letters, "
            "digits and characters of ._@+-",
            reason="BAD_TOKEN",
        )
    if len(roles) > MAX_ROLES:
        raise InvalidArgumentError(f"a token may have at most {MAX_ROLES} roles", reason="BAD_TOKEN")
    for role in roles:
        if not role or len(role) > MAX_ROLE or not role.isprintable() or role != role.strip() or "," in role:
            raise InvalidArgumentError(
                f"the role {role[:200]!r} must have 1 to {MAX_ROLE} printable characters, no comma, "
                "and no space at its ends",
                reason="BAD_TOKEN",
            )


def _add(
    connection: Connection,
    *,
    name: str,
    roles: Sequence[str],
    token_hash: bytes,
    lifetime: int | None,
    event: AuditEvent,
) -> ApiToken:
    stored = _row(connection, api_tokens.c.token_hash == token_hash)
    if stored is not None:  # The answer of an earlier commit was lost.
        return _token(stored)
    now = database_now(connection)
    _forget_old(connection, now)
    _take_name(connection, name, now)
    if _count_active(connection, now) >= MAX_TOKENS:
        raise ResourceExhaustedError(
            f"there are {MAX_TOKENS} active tokens: revoke some of them first", reason="TOO_MANY_TOKENS"
        )
    connection.execute(
        insert(api_tokens).values(
            name=name,
            active_name=name,
            token_hash=token_hash,
            roles=json.dumps(roles),
            created_at=now,
            expires_at=None if lifetime is None else now + lifetime,
        )
    )
    record_event(connection, event)
    added = _row(connection, api_tokens.c.token_hash == token_hash)
    assert added is not None  # noqa: S101 (inserted above)
    return _token(added)


def _take_name(connection: Connection, name: str, now: int) -> None:
    """Takes a name from an expired token.

    Raises:
        ConflictError: An active token has the name.
    """
    holder = _row(connection, api_tokens.c.active_name == name)
    if holder is None:
        return
    if _token(holder).state(now) == "active":
        raise ConflictError(
            f"an active token is called {name}: revoke it first, or choose another name",
            reason="TOKEN_EXISTS",
        )
    connection.execute(
        update(api_tokens).where(api_tokens.c.token_id == holder.token_id).values(active_name=None)
    )


def _count_active(connection: Connection, now: int) -> int:
    expires_at = api_tokens.c.expires_at
    is_active = and_(api_tokens.c.revoked_at.is_(None), or_(expires_at.is_(None), expires_at > now))
    return connection.scalar(select(func.count()).select_from(api_tokens).where(is_active)) or 0


def _forget_old(connection: Connection, now: int) -> None:
    ended = or_(api_tokens.c.revoked_at < now - KEPT, api_tokens.c.expires_at < now - KEPT)
    connection.execute(delete(api_tokens).where(ended))


def _all(connection: Connection) -> Sequence[ApiToken]:
    return [_token(row) for row in connection.execute(select(api_tokens).order_by(api_tokens.c.token_id))]


def _find(connection: Connection, name_or_id: str) -> ApiToken:
    is_number = name_or_id.isascii() and name_or_id.isdigit() and len(name_or_id) <= 18
    row = _row(
        connection,
        api_tokens.c.token_id == int(name_or_id) if is_number else api_tokens.c.active_name == name_or_id,
    )
    if row is None:
        what = (
            f"no token has the id {name_or_id}" if is_number else f"no token is called {name_or_id[:200]!r}"
        )
        raise NotFoundError(f"{what}: `spincycle token list` shows the tokens", reason="TOKEN_NOT_FOUND")
    return _token(row)


def _find_hash(connection: Connection, token_hash: bytes) -> ApiToken:
    row = _row(connection, api_tokens.c.token_hash == token_hash)
    if row is None:
        raise NotFoundError(
            "this database does not have this token: check that it is the token of this installation",
            reason="TOKEN_NOT_FOUND",
        )
    return _token(row)


def _revoke(connection: Connection, token_id: int, event: AuditEvent) -> None:
    revoked = connection.execute(
        update(api_tokens)
        .where(api_tokens.c.token_id == token_id, api_tokens.c.revoked_at.is_(None))
        .values(revoked_at=database_now(connection), active_name=None)
    )
    if revoked.rowcount:
        name = connection.scalar(select(api_tokens.c.name).where(api_tokens.c.token_id == token_id))
        event.detail = f"token {name}"
        record_event(connection, event)


def _row(connection: Connection, condition: Any) -> Row[Any] | None:
    return connection.execute(select(api_tokens).where(condition)).one_or_none()


def _token(row: Row[Any]) -> ApiToken:
    return ApiToken(
        row.token_id, row.name, json.loads(row.roles), row.created_at, row.expires_at, row.revoked_at
    )
