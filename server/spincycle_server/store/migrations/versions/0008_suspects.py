"""The requests whose runner died, perhaps because of one of their jobs."""

import sqlalchemy as sa

from spincycle_server.database.types import Ascii
from spincycle_server.store.migrations.missing import add_column, add_table

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the table, and a column that says which requests have a row in it."""
    add_column("requests", sa.Column("is_suspect", sa.Boolean, nullable=True))
    add_table(
        "suspects",
        [
            sa.Column("request_id", Ascii(20, fixed=True), primary_key=True),
            sa.Column("runner_id", Ascii(20), nullable=False),
            sa.Column("started", sa.String(2000), nullable=False),
            sa.Column("is_shared", sa.Boolean, nullable=False),
            sa.Column("is_alone", sa.Boolean, nullable=False),
            sa.Column("crashed_runners", sa.String(210), nullable=False),
            sa.Column("crashed_job", Ascii(4), nullable=False),
        ],
    )
