"""What recovery needs, what makes transactions and creations happen once, and room for large values."""

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from server.store.migrations.missing import (
    BLOBS,
    add_column,
    add_table,
    widen_mysql,
    widen_mysql_text,
)
from server.store.schema import Ascii

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_HASH = sa.LargeBinary(32).with_variant(mysql.BINARY(32), "mysql")


def upgrade() -> None:
    """Adds tables, and widens columns."""
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
