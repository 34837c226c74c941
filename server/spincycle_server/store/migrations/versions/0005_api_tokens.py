"""The API tokens of users."""

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from spincycle_server.database.types import Ascii
from spincycle_server.store.migrations.missing import add_table

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the table."""
    add_table(
        "api_tokens",
        [
            sa.Column("token_id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
            sa.Column("name", Ascii(100), nullable=False),
            sa.Column("active_name", Ascii(100), nullable=True),
            sa.Column(
                "token_hash", sa.LargeBinary(32).with_variant(mysql.BINARY(32), "mysql"), nullable=False
            ),
            sa.Column("roles", sa.Text, nullable=False),
            sa.Column("created_at", sa.BigInteger, nullable=False),
            sa.Column("expires_at", sa.BigInteger, nullable=True),
            sa.Column("revoked_at", sa.BigInteger, nullable=True),
        ],
        unique={"api_tokens_active_name": ["active_name"], "api_tokens_hash": ["token_hash"]},
    )
