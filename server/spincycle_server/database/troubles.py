"""Troubles of databases: which pass by themselves, and what they are for users."""

from __future__ import annotations

import sqlite3
from enum import Enum, auto

from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from spincycle_grpc.errors import InternalError, InvalidArgumentError, SpinCycleError, UnavailableError


class Trouble(Enum):
    """What a failed statement or transaction tells of the database."""

    CONFLICT = auto()
    """Another transaction was in the way: the same one may be done again at once."""

    DUPLICATE = auto()
    """There is a row of that key already: somebody was faster, or will always have been."""

    AWAY = auto()
    """The connection was lost, or there is none to be had: it may be there again in a while."""

    UNUSABLE = auto()
    """The database cannot do it now, as with a full disk; somebody has to see to it."""

    TOO_LARGE = auto()
    """A value is larger than the database takes."""

    FAULT = auto()
    """The statement is wrong, or a value does not fit."""


_MYSQL_CONFLICTS = frozenset({1020, 1205, 1213})
_MYSQL_AWAY = frozenset(
    # Closed already, too many connections, shutdown, killed, lost, no server; read-only, as after a failover.
    {0, 1040, 1053, 1152, 1158, 1159, 1160, 1161, 1184, 1203, 1226, 1290, 1836, 1927, 2002, 2003, 2006, 2013,
     2014, 2055, 4031}
)  # fmt: skip
_MYSQL_UNUSABLE = frozenset({3, 5, 28, 1021, 1030, 1037, 1041, 1044, 1045, 1049, 1114, 1129, 1130, 1698})
_MYSQL_ENDED = frozenset({1317, 1969, 3024})
_POSTGRESQL_ENDED = "57014"
_POSTGRESQL_CONFLICTS = ("40001", "40P01", "55P03")
_POSTGRESQL_AWAY = ("08", "57P0", "53300", "25006", _POSTGRESQL_ENDED)
_POSTGRESQL_UNUSABLE = ("53", "54", "55", "58", "28", "3D", "42501")


def trouble_of(error: Exception) -> Trouble:
    """Returns what an error tells of the database."""
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
    """Whether the database ended the statement, which took too long, and is there itself.

    Of a write or of a read by a key that takes so long, `trouble_of` says that the database is away.
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
    # An error that pymysql makes itself, as when the connection was closed under it, has no such code.
    return Trouble.UNUSABLE if code in _MYSQL_UNUSABLE else Trouble.FAULT


def _of_postgresql(cause: BaseException | None) -> Trouble:
    code = getattr(cause, "sqlstate", None)
    if code is None:  # no connection could be made, or it broke
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
    """Whether an error is of a class of this name: drivers that are not used are not loaded."""
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


def translate(error: Exception) -> SpinCycleError:
    """Returns what an error of the database is for users. Statements, values and addresses stay out of it."""
    if isinstance(error, SpinCycleError):
        return error
    if not isinstance(error, SQLAlchemyError) and not _is_of_driver(error):
        return InternalError("internal error: the server's log says more")
    trouble = trouble_of(error)
    if trouble is Trouble.TOO_LARGE:
        return InvalidArgumentError(
            "it is larger than the database takes at once: send less, or have its limit raised",
            reason="TOO_LARGE_TO_STORE",
        )
    if trouble is Trouble.FAULT:
        return InternalError(
            "the database refused a change: the server's log says more", reason="DATABASE_ERROR"
        )
    why = {
        Trouble.CONFLICT: "it is too busy",
        Trouble.DUPLICATE: "somebody else does the same",
        Trouble.AWAY: "it does not answer",
        Trouble.UNUSABLE: "it cannot do its work, the server's log says why",
    }[trouble]
    return UnavailableError(f"the database cannot be used now: {why}", reason="DATABASE_UNAVAILABLE")


def translate_for_operator(error: Exception, url: URL) -> SpinCycleError:
    """Returns what an error is for who starts a server or a command: with the words of the database.

    They name users, hosts and databases, and say what to see to. A password is never among them, nor
    is any statement.
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
