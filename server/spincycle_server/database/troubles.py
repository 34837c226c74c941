"""Classifies errors of databases, and translates them for users and operators."""

from __future__ import annotations

import sqlite3
from enum import Enum, auto

from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from spincycle_grpc.errors import InternalError, InvalidArgumentError, SpinCycleError, UnavailableError


class Trouble(Enum):
    """Why a statement or transaction failed."""

    CONFLICT = auto()
    """The transaction conflicted with another one. It can be retried at once."""

    DUPLICATE = auto()
    """A row with the same key exists. A retry helps if another transaction inserted it just now."""

    AWAY = auto()
    """The connection was lost or cannot be made. The database may come back soon."""

    UNUSABLE = auto()
    """The database cannot do its work, for example because its disk is full. An operator must act."""

    TOO_LARGE = auto()
    """A value is larger than the database allows."""

    FAULT = auto()
    """The statement is invalid, or a value does not fit."""


_MYSQL_CONFLICTS = frozenset({1020, 1205, 1213})
_MYSQL_AWAY = frozenset(
    # Closed already, too many connections, shutdown, killed, lost, no server; read-only, as after a failover;
    # a Galera node that is not ready (1047), or an error during a commit, which may have happened (1180).
    {0, 1040, 1047, 1053, 1152, 1158, 1159, 1160, 1161, 1180, 1184, 1203, 1226, 1290, 1836, 1927, 2002, 2003,
     2006, 2013, 2014, 2055, 4031}
)  # fmt: skip
_MYSQL_UNUSABLE = frozenset({3, 5, 28, 1021, 1030, 1037, 1041, 1044, 1045, 1049, 1114, 1129, 1130, 1698})
_MYSQL_ENDED = frozenset({1317, 1969, 3024})
_POSTGRESQL_ENDED = "57014"
_POSTGRESQL_CONFLICTS = ("40001", "40P01", "55P03")
_POSTGRESQL_AWAY = ("08", "57P0", "53300", "25006", _POSTGRESQL_ENDED)
_POSTGRESQL_UNUSABLE = ("53", "54", "55", "58", "28", "3D", "42501")


def trouble_of(error: Exception) -> Trouble:
    """Classifies an error."""
    if isinstance(error, PoolTimeoutError):
        return Trouble.AWAY
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return Trouble.AWAY
    cause = error.orig if isinstance(error, DBAPIError) else error
    module = type(cause).__module__
    if module.startswith("pymysql"):
        return _of_mysql(cause)
    if module.startswith("psycopg"):
        return _of_postgresql(cause)
    return _of_sqlite(cause) if isinstance(cause, sqlite3.Error) else Trouble.FAULT


def was_ended(error: DBAPIError) -> bool:
    """Whether the database itself ended the statement because it took too long.

    `trouble_of` classifies the same error as AWAY, because no other statement should ever take that long.
    """
    cause = error.orig
    if type(cause).__module__.startswith("pymysql"):
        return _mysql_code(cause) in _MYSQL_ENDED
    return getattr(cause, "sqlstate", None) == _POSTGRESQL_ENDED


def _mysql_code(cause: BaseException | None) -> object:
    return cause.args[0] if cause is not None and cause.args else None


def _of_mysql(cause: BaseException | None) -> Trouble:
    code = _mysql_code(cause)
    if code == 1062:
        return Trouble.DUPLICATE
    if code == 1153:
        return Trouble.TOO_LARGE
    if code in _MYSQL_CONFLICTS:
        return Trouble.CONFLICT
    if code in _MYSQL_AWAY:
        return Trouble.AWAY
    # Errors that pymysql raises itself have no such code, for example if the connection was closed.
    return Trouble.UNUSABLE if code in _MYSQL_UNUSABLE else Trouble.FAULT


def _of_postgresql(cause: BaseException | None) -> Trouble:
    code = getattr(cause, "sqlstate", None)
    if code is None:  # The connection could not be made, or it broke.
        return Trouble.AWAY if _is_called(cause, "OperationalError") else Trouble.FAULT
    if code == "23505":
        return Trouble.DUPLICATE
    if code == "54000":
        return Trouble.TOO_LARGE
    if code in _POSTGRESQL_CONFLICTS:
        return Trouble.CONFLICT
    if code.startswith(_POSTGRESQL_AWAY):
        return Trouble.AWAY
    return Trouble.UNUSABLE if code.startswith(_POSTGRESQL_UNUSABLE) else Trouble.FAULT


def _is_called(cause: object, name: str) -> bool:
    """Whether an error's class has this name. Comparing names does not load drivers that are not used."""
    return any(kind.__name__ == name for kind in type(cause).__mro__)


def _of_sqlite(cause: sqlite3.Error) -> Trouble:
    text = str(cause)
    if "too big" in text:
        return Trouble.TOO_LARGE
    if "UNIQUE constraint" in text:
        return Trouble.DUPLICATE
    if "locked" in text:
        return Trouble.CONFLICT
    is_broken = "not a database" in text or "malformed" in text
    is_unusable = is_broken or isinstance(cause, sqlite3.OperationalError)
    return Trouble.UNUSABLE if is_unusable else Trouble.FAULT


def _is_of_driver(error: Exception) -> bool:
    return type(error).__module__.split(".")[0] in ("pymysql", "psycopg", "sqlite3")


def too_large_to_store() -> InvalidArgumentError:
    """Returns the error of a request that the database cannot store. Reason: TOO_LARGE_TO_STORE."""
    return InvalidArgumentError(
        "the request is larger than the database allows: send less, or ask an operator to raise "
        "the limit of the database",
        reason="TOO_LARGE_TO_STORE",
    )


def translate(error: Exception) -> SpinCycleError:
    """Translates an error of the database for users, without statements, values and addresses."""
    if isinstance(error, SpinCycleError):
        return error
    if not isinstance(error, SQLAlchemyError) and not _is_of_driver(error):
        return InternalError("internal error: see the server's log for details")
    trouble = trouble_of(error)
    if trouble is Trouble.TOO_LARGE:
        return too_large_to_store()
    if trouble is Trouble.FAULT:
        return InternalError("the database refused a change: see the server's log", reason="DATABASE_ERROR")
    why = {
        Trouble.CONFLICT: "it is too busy",
        Trouble.DUPLICATE: "another transaction writes the same row",
        Trouble.AWAY: "it does not answer",
        Trouble.UNUSABLE: "an operator must repair it, and the server's log says why",
    }[trouble]
    return UnavailableError(f"the database cannot be used now: {why}", reason="DATABASE_UNAVAILABLE")


def translate_for_operator(error: Exception, url: URL) -> SpinCycleError:
    """Translates an error for the operator who starts a server or a command, in the database's own words.

    The words name users, hosts and databases. They never contain a password or a statement.
    """
    translated = translate(error)
    if translated is error or not isinstance(error, DBAPIError) or translated.reason == "INTERNAL":
        return translated
    arguments = error.orig.args if error.orig is not None else ()
    words = " ".join(str(arguments[-1]).split()) if arguments else type(error).__name__
    if url.password:
        words = words.replace(str(url.password), "***")
    if isinstance(translated, UnavailableError):
        return UnavailableError(f"the database cannot be used now: {words}", reason=translated.reason)
    return InternalError(f"the database refused a change: {words}", reason=translated.reason)
