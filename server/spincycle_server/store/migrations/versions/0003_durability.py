"""Columns for recovery, tables of writers and idempotency keys, wider columns, and indexes for finds."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from spincycle_server.database.types import Ascii
from spincycle_server.store.migrations.missing import (
    BLOBS,
    add_column,
    add_indexes,
    add_table,
    drop_index,
    widen_mysql,
    widen_mysql_text,
)

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_HASH = sa.LargeBinary(32).with_variant(mysql.BINARY(32), "mysql")


def upgrade() -> None:
    """Adds tables, columns and indexes, and widens columns."""
    add_column("requests", sa.Column("stop_requested", sa.Boolean, nullable=False, server_default=sa.false()))
    add_column("suspended_job_chains", sa.Column("epoch", sa.BigInteger, nullable=True))
    add_column("suspended_job_chains", sa.Column("is_dropped", sa.Boolean, nullable=True))
    add_column("job_log", sa.Column("epoch", sa.BigInteger, nullable=True))
    add_column("job_log", sa.Column("ordinal", sa.BigInteger, nullable=True))
    add_column("job_log", sa.Column("is_last", sa.Boolean, nullable=True))
    add_table(
        "writers",
        [
            sa.Column("writer_id", Ascii(20), primary_key=True),
            sa.Column("batch", sa.BigInteger, nullable=False),
            sa.Column("updated_at", sa.BigInteger, nullable=False),
        ],
    )
    add_table(
        "idempotency_keys",
        [
            sa.Column("key_hash", _HASH, primary_key=True),
            sa.Column("body_hash", _HASH, nullable=False),
            sa.Column("request_id", Ascii(20, fixed=True), nullable=False),
            sa.Column("expires_at", sa.BigInteger, nullable=False),
        ],
        {"idempotency_keys_expires_at": ["expires_at"]},
    )
    tiny = (mysql.TINYINT, mysql.SMALLINT, mysql.INTEGER)
    widen_mysql("job_log", "exit", tiny, mysql.BIGINT(), nullable=True)
    widen_mysql("request_archives", "create_request", BLOBS, mysql.LONGBLOB(), nullable=False)
    widen_mysql("request_archives", "args", BLOBS, mysql.LONGBLOB(), nullable=True)
    widen_mysql_text("requests", "user", nullable=True)
    widen_mysql_text("job_log", "name", nullable=False)
    widen_mysql_text("job_log", "error", nullable=True)
    _index_finds()


def _index_finds() -> None:
    """Adds the column and the indexes that return requests in order. The original's indexes stay."""
    add_column("request_args", sa.Column("created_at", sa.BigInteger, nullable=False, server_default="0"))
    dialect = op.get_context().dialect.name
    microseconds = {
        "mysql": "CAST(UNIX_TIMESTAMP(requests.created_at) * 1000000 AS SIGNED)",
        "postgresql": "CAST(EXTRACT(EPOCH FROM requests.created_at) * 1000000 AS BIGINT)",
    }.get(dialect, "requests.created_at")
    op.execute(
        "UPDATE request_args SET created_at = COALESCE((SELECT "  # noqa: S608 (one of three texts above)
        f"{microseconds} FROM requests WHERE requests.request_id = request_args.request_id), 0) "
        "WHERE created_at = 0"
    )
    drop_index("request_args", "request_args_name_value")
    add_indexes("request_args", {"request_args_newest": ["name", "value", "created_at", "request_id"]})
    # On PostgreSQL, index an expression, so that the planner can use no other index to order a find.
    created_at = sa.text("(created_at AT TIME ZONE 'UTC')") if dialect == "postgresql" else "created_at"
    add_indexes(
        "requests",
        {
            "created_at": ["created_at"],
            "finished_at": ["finished_at"],
            "state": ["state", "created_at"],
            "requests_type": ["type", "state", created_at],
            "requests_user": ["user", "state", created_at],
        },
    )
