"""The approvals that jobs wait for, and the decisions about them."""

import sqlalchemy as sa

from spincycle_server.database.types import Ascii, blob
from spincycle_server.store.migrations.missing import add_table

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the tables."""
    add_table(
        "approvals",
        [
            sa.Column("request_id", Ascii(20, fixed=True), primary_key=True),
            sa.Column("job_id", Ascii(4, fixed=True), primary_key=True),
            sa.Column("try", sa.Integer, primary_key=True, autoincrement=False),
            sa.Column("sequence_tries", Ascii(64), nullable=False),
            sa.Column("body", blob(), nullable=False),
            sa.Column("opened_at", sa.BigInteger, nullable=False),
            sa.Column("deadline", sa.BigInteger, nullable=False),
            sa.Column("result", sa.SmallInteger, nullable=False),
        ],
        {"approvals_result": ["result", "opened_at"]},
    )
    add_table(
        "approval_decisions",
        [
            sa.Column("request_id", Ascii(20, fixed=True), primary_key=True),
            sa.Column("job_id", Ascii(4, fixed=True), primary_key=True),
            sa.Column("try", sa.Integer, primary_key=True, autoincrement=False),
            sa.Column("user", sa.String(100), primary_key=True),
            sa.Column("approved", sa.Boolean, nullable=False),
            sa.Column("comment", sa.String(1000), nullable=False),
            sa.Column("decided_at", sa.BigInteger, nullable=False),
        ],
    )
