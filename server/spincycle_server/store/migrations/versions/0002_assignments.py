"""Assignments of requests to runners, what recovery needs of a try, and args to find requests by."""

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from spincycle_server.database.types import Ascii
from spincycle_server.store.migrations.missing import add_column, add_table

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds columns that are nullable or have defaults, so that the original's statements keep working."""
    blob = sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql")
    add_column("requests", sa.Column("epoch", sa.BigInteger, nullable=False, server_default="0"))
    # The default marks the rows of an original, those that are there and those that it adds later.
    add_column("requests", sa.Column("runner_id", Ascii(20), nullable=True, server_default="original"))
    add_column("job_log", sa.Column("job_data", blob, nullable=True))
    add_column("job_log", sa.Column("sequence_try", sa.Integer, nullable=True))
    add_table(
        "runners",
        [
            sa.Column("runner_id", Ascii(20), primary_key=True),
            sa.Column("url", sa.String(2000), nullable=False),
            sa.Column("grpc_address", sa.String(300), nullable=False),
            sa.Column("draining", sa.Boolean, nullable=False),
            sa.Column("lease_expires_at", sa.BigInteger, nullable=False),
        ],
        {"runners_lease_expires_at": ["lease_expires_at"]},
    )
    add_table(
        "request_args",
        [
            sa.Column("request_id", Ascii(20, fixed=True), primary_key=True),
            sa.Column("name", sa.String(100), primary_key=True),
            sa.Column("value", sa.String(200), nullable=False),
        ],
        {"request_args_name_value": ["name", "value", "request_id"]},
    )
