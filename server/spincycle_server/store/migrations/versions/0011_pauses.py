"""Who paused a request, and when."""

import sqlalchemy as sa

from spincycle_server.store.migrations.missing import add_column

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds columns that are null unless the request is paused."""
    add_column("requests", sa.Column("paused_at", sa.BigInteger, nullable=True))
    add_column("requests", sa.Column("paused_by", sa.String(100), nullable=True))
    add_column("requests", sa.Column("pause_now", sa.Boolean, nullable=True))
