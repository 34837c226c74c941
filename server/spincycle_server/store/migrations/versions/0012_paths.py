"""The paths of jobs in the job log."""

import sqlalchemy as sa

from spincycle_server.store.migrations.missing import add_column

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds a column that is null for jobs whose name says as much as their path."""
    add_column("job_log", sa.Column("path", sa.Text, nullable=True))
