"""The numbers of jobs without the noops that only connect other jobs."""

import sqlalchemy as sa

from spincycle_server.store.migrations.missing import add_column

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds columns that are null in rows that exist: nobody has counted their tasks."""
    add_column("requests", sa.Column("total_tasks", sa.Integer, nullable=True))
    add_column("requests", sa.Column("finished_tasks", sa.Integer, nullable=True))
