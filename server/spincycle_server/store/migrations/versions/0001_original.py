"""The original's tables.

Each is created only if it is missing, because an original's database already has it.
"""

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from spincycle_server.database.types import Ascii, Microseconds
from spincycle_server.store.migrations.missing import add_table

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TINYINT = sa.SmallInteger().with_variant(mysql.TINYINT(), "mysql")
_LONGBLOB = sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql")


def upgrade() -> None:
    """Creates the missing tables."""
    for name, columns, indexes in _TABLES:
        add_table(name, columns(), indexes)


def _time(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    # Without a default, MySQL sets a TIMESTAMP to the current time whenever the row changes.
    default = sa.text("CURRENT_TIMESTAMP(6)") if _is_mysql() and not nullable else None
    return sa.Column(name, Microseconds, nullable=nullable, server_default=default)


def _is_mysql() -> bool:
    return bool(op.get_context().dialect.name == "mysql")


def _requests() -> list[sa.Column[Any]]:
    return [
        sa.Column("request_id", Ascii(20, fixed=True), primary_key=True),
        sa.Column("type", Ascii(75), nullable=False),
        sa.Column("state", _TINYINT, nullable=False),
        sa.Column("user", sa.String(100), nullable=True),
        _time("created_at"),
        _time("started_at", nullable=True),
        _time("finished_at", nullable=True),
        sa.Column("total_jobs", sa.Integer, nullable=False, server_default="0"),
        sa.Column("finished_jobs", sa.Integer, nullable=False, server_default="0"),
        sa.Column("jr_url", sa.String(2000), nullable=True),
    ]


def _request_archives() -> list[sa.Column[Any]]:
    return [
        sa.Column("request_id", Ascii(20, fixed=True), primary_key=True),
        sa.Column("create_request", _LONGBLOB, nullable=False),
        sa.Column("args", _LONGBLOB, nullable=True),
        sa.Column("job_chain", _LONGBLOB, nullable=False),
    ]


def _job_log() -> list[sa.Column[Any]]:
    number = sa.SmallInteger().with_variant(sa.Integer(), "sqlite", "postgresql")
    return [
        sa.Column("request_id", Ascii(20, fixed=True), primary_key=True),
        sa.Column("job_id", Ascii(4, fixed=True), primary_key=True),
        sa.Column("try", number, primary_key=True, autoincrement=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("type", Ascii(75), nullable=False),
        sa.Column("state", _TINYINT, nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("finished_at", sa.BigInteger, nullable=True),
        sa.Column("error", sa.Text, nullable=True),
        sa.Column("exit", sa.BigInteger, nullable=True),
        sa.Column("stdout", _LONGBLOB, nullable=True),
        sa.Column("stderr", _LONGBLOB, nullable=True),
    ]


def _suspended_job_chains() -> list[sa.Column[Any]]:
    return [
        sa.Column("request_id", Ascii(20, fixed=True), primary_key=True),
        sa.Column("suspended_job_chain", _LONGBLOB, nullable=False),
        sa.Column("rm_host", sa.String(64), nullable=True),
        _time("updated_at"),
        _time("suspended_at"),
    ]


_TABLES: tuple[tuple[str, Callable[[], list[sa.Column[Any]]], dict[str, list[str]]], ...] = (
    (
        "requests",
        _requests,
        {"created_at": ["created_at"], "finished_at": ["finished_at"], "state": ["state", "created_at"]},
    ),
    ("request_archives", _request_archives, {}),
    ("job_log", _job_log, {}),
    ("suspended_job_chains", _suspended_job_chains, {}),
)
