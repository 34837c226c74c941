"""Indexes of the job log: the order of reports, and the tries that are not COMPLETE."""

from alembic import op

from spincycle_server.store.migrations.missing import add_indexes

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the indexes. MySQL has no partial indexes, so it gets none of failures."""
    add_indexes("job_log", {"job_log_reports": ["request_id", "epoch", "ordinal"]})
    if op.get_context().dialect.name != "mysql":
        add_indexes("job_log", {"job_log_failures": ["request_id", "job_id", "try"]}, where="state <> 3")
