"""The keys that seal the sessions of browsers."""

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from spincycle_server.store.migrations.missing import add_table

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the table. It is empty until somebody signs in."""
    add_table(
        "session_keys",
        [
            sa.Column("key_id", sa.LargeBinary(8).with_variant(mysql.BINARY(8), "mysql"), primary_key=True),
            sa.Column("key", sa.LargeBinary(32).with_variant(mysql.BINARY(32), "mysql"), nullable=False),
            sa.Column("created_at", sa.BigInteger, nullable=False),
        ],
    )
