"""The deliveries of notifications."""

import sqlalchemy as sa

from spincycle_server.database.types import Ascii, BoundedText, StateNumber, blob
from spincycle_server.store.migrations.missing import add_table

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the table. It is empty without targets."""
    add_table(
        "deliveries",
        [
            sa.Column("event_id", Ascii(20, fixed=True), primary_key=True),
            sa.Column("target", Ascii(40), primary_key=True),
            sa.Column("event", Ascii(20), nullable=False),
            sa.Column("request_id", Ascii(20, fixed=True), nullable=True),
            sa.Column("request_type", Ascii(75), nullable=False),
            sa.Column("request_state", StateNumber, nullable=False),
            sa.Column("detail", blob(), nullable=True),
            sa.Column("occurred_at", sa.BigInteger, nullable=False),
            sa.Column("delivery_state", StateNumber, nullable=False),
            sa.Column("attempts", sa.Integer, nullable=False),
            sa.Column("next_attempt_at", sa.BigInteger, nullable=False),
            sa.Column("ended_at", sa.BigInteger, nullable=True),
            sa.Column("last_error", BoundedText(300), nullable=False),
        ],
        {
            "deliveries_due": ["target", "delivery_state", "next_attempt_at"],
            "deliveries_newest": ["occurred_at", "event_id", "target"],
            "deliveries_request": ["request_id", "occurred_at", "event_id", "target"],
            "deliveries_ended_at": ["ended_at"],
        },
    )
