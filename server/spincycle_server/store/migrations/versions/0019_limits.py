"""The keys of limits, with the requests that hold them or wait for them."""

import sqlalchemy as sa

from spincycle_server.database.types import Ascii
from spincycle_server.store.migrations.missing import add_column, add_table

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the tables, and a column that says which requests have rows in them."""
    add_column("requests", sa.Column("has_limits", sa.Boolean, nullable=True))
    add_table(
        "limits",
        [
            sa.Column("limit_id", Ascii(32), primary_key=True),
            sa.Column("key", sa.String(255), nullable=False),
            sa.Column("max", sa.Integer, nullable=False),
            sa.Column("last_ticket", sa.BigInteger, nullable=False),
            sa.Column("claims", sa.Integer, nullable=False),
        ],
    )
    add_table(
        "limit_claims",
        [
            sa.Column("limit_id", Ascii(32), primary_key=True),
            sa.Column("ticket", sa.BigInteger, primary_key=True, autoincrement=False),
            sa.Column("request_id", Ascii(20, fixed=True), nullable=False),
            sa.Column("sequence_id", Ascii(4), nullable=False, server_default=""),
            sa.Column("claimed_at", sa.BigInteger, nullable=False),
            sa.Column("held_at", sa.BigInteger, nullable=True),
            sa.Column("requirement", Ascii(32), nullable=False),
        ],
        {"limit_claims_request": ["request_id"]},
    )
