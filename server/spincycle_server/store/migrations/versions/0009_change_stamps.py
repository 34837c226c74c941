"""Stamps of changes, numbers of writers, and the ids of deleted requests."""

import sqlalchemy as sa

from spincycle_server.database.types import Ascii
from spincycle_server.store.migrations.missing import add_column, add_indexes, add_table

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds columns, indexes and tables. Rows that exist get no stamp."""
    add_column("requests", sa.Column("change_stamp", sa.BigInteger, nullable=True))
    add_indexes("requests", {"requests_change_stamp": ["change_stamp"]})
    add_column("job_log", sa.Column("change_stamp", sa.BigInteger, nullable=True))
    add_indexes("job_log", {"job_log_change_stamp": ["change_stamp"]})
    add_column("writers", sa.Column("number", sa.BigInteger, nullable=True))
    add_table(
        "counters",
        [
            sa.Column("name", Ascii(20), primary_key=True),
            sa.Column("value", sa.BigInteger, nullable=False),
        ],
    )
    add_table(
        "deleted_requests",
        [
            sa.Column("request_id", Ascii(20, fixed=True), primary_key=True),
            sa.Column("type", Ascii(75), nullable=False),
            sa.Column("user", sa.String(100), nullable=True),
            sa.Column("change_stamp", sa.BigInteger, nullable=False),
            sa.Column("deleted_at", sa.BigInteger, nullable=False),
        ],
        {
            "deleted_requests_change_stamp": ["change_stamp"],
            "deleted_requests_deleted_at": ["deleted_at"],
        },
    )
