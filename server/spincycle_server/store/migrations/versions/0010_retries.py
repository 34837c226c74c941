"""The request of which a request is a retry."""

import sqlalchemy as sa

from spincycle_server.database.types import Ascii
from spincycle_server.store.migrations.missing import add_column, add_indexes

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the column and its index. Rows that exist are no retries."""
    add_column("requests", sa.Column("retry_of", Ascii(20), nullable=True))
    add_indexes("requests", {"requests_retry_of": ["retry_of"]}, where="retry_of IS NOT NULL")
