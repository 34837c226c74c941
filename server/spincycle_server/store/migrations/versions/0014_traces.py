"""The trace that a request belongs to."""

import sqlalchemy as sa

from spincycle_server.database.types import Ascii
from spincycle_server.store.migrations.missing import add_column

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds a column that is null unless the call that created the request belonged to a trace."""
    add_column("requests", sa.Column("trace_context", Ascii(568), nullable=True))
