"""The pages of job chains that are too long for one value."""

import sqlalchemy as sa

from spincycle_server.database.types import Ascii, blob
from spincycle_server.store.migrations.missing import add_table

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the table."""
    add_table(
        "job_chain_pages",
        [
            sa.Column("request_id", Ascii(20, fixed=True), primary_key=True),
            sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
            sa.Column("page", blob(), nullable=False),
        ],
    )
