"""The audit log."""

import sqlalchemy as sa

from spincycle_server.database.types import Ascii
from spincycle_server.store.migrations.missing import add_table

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the table of audit events."""
    add_table(
        "audit_events",
        [
            sa.Column("occurred_at", sa.BigInteger, primary_key=True, autoincrement=False),
            sa.Column("event_id", Ascii(20, fixed=True), primary_key=True),
            sa.Column("user", sa.String(255), nullable=False),
            sa.Column("auth_method", sa.String(20), nullable=False),
            sa.Column("peer", sa.String(255), nullable=False),
            sa.Column("transport", sa.String(20), nullable=False),
            sa.Column("operation", sa.String(100), nullable=False),
            sa.Column("request_id", Ascii(20, fixed=True), nullable=True),
            sa.Column("request_type", sa.String(75), nullable=False),
            sa.Column("outcome", sa.String(64), nullable=False),
            sa.Column("count", sa.BigInteger, nullable=False),
            sa.Column("detail", sa.String(1000), nullable=False),
        ],
        {
            "audit_events_request": ["request_id", "occurred_at", "event_id"],
            "audit_events_user": ["user", "occurred_at", "event_id"],
        },
    )
