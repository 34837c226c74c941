"""When deliveries were last sent again, because their age counts from then."""

import sqlalchemy as sa

from spincycle_server.store.migrations.missing import add_column

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the column."""
    add_column("deliveries", sa.Column("redelivered_at", sa.BigInteger, nullable=True))
