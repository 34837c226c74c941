"""What requests need of a runner, and what runners have."""

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from spincycle_server.database.types import Ascii
from spincycle_server.store.migrations.missing import add_column, add_indexes, add_table

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds a table, columns that are nullable or have defaults, and an index."""
    blob = sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql")
    add_table(
        "requirements",
        [
            sa.Column("requirement_id", Ascii(32), primary_key=True),
            sa.Column("body", blob, nullable=False),
        ],
    )
    add_column("requests", sa.Column("requirement", Ascii(32), nullable=False, server_default=""))
    add_column("runners", sa.Column("capabilities_id", Ascii(32), nullable=True))
    add_column("runners", sa.Column("capabilities", blob, nullable=True))
    add_indexes(
        "requests",
        {"requests_requirement": ["state", "requirement", "created_at"]},
        where="state IN (1, 7)",  # PENDING and SUSPENDED
    )
