"""Why requests were stopped, if no user did it."""

import sqlalchemy as sa

from spincycle_server.store.migrations.missing import add_column

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the column."""
    add_column("requests", sa.Column("stop_reason", sa.String(400), nullable=True))
