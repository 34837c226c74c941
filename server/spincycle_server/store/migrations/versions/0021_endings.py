"""How requests end whose chains have `finally` parts."""

import sqlalchemy as sa

from spincycle_server.store.migrations.missing import add_column

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the columns. Requests that exist have no `finally` parts."""
    add_column("requests", sa.Column("has_finally", sa.Boolean, nullable=True))
    add_column("requests", sa.Column("ending", sa.SmallInteger, nullable=True))
    add_column("requests", sa.Column("skip_finally", sa.Boolean, nullable=True))
