"""Assignments of requests to runners, what recovery needs of a try, and args to find requests by."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from server.store.schema import Ascii

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds columns that are nullable or have defaults, so that the original's statements go on working."""
    op.add_column("requests", sa.Column("epoch", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("requests", sa.Column("runner_id", Ascii(20), nullable=True))
    op.add_column(
        "requests", sa.Column("stop_requested", sa.Boolean, nullable=False, server_default=sa.false())
    )
    op.add_column("suspended_job_chains", sa.Column("epoch", sa.BigInteger, nullable=True))
    op.add_column("suspended_job_chains", sa.Column("is_dropped", sa.Boolean, nullable=True))
    blob = sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")
    op.add_column("job_log", sa.Column("job_data", blob, nullable=True))
    op.add_column("job_log", sa.Column("sequence_try", sa.Integer, nullable=True))
    op.add_column("job_log", sa.Column("epoch", sa.BigInteger, nullable=True))
    op.add_column("job_log", sa.Column("ordinal", sa.BigInteger, nullable=True))
    op.add_column("job_log", sa.Column("is_last", sa.Boolean, nullable=True))
    op.create_table(
        "runners",
        sa.Column("runner_id", Ascii(20), primary_key=True),
        sa.Column("url", sa.String(2000), nullable=False),
        sa.Column("grpc_address", sa.String(300), nullable=False),
        sa.Column("draining", sa.Boolean, nullable=False),
        sa.Column("lease_expires_at", sa.BigInteger, nullable=False),
    )
    op.create_index("runners_lease_expires_at", "runners", ["lease_expires_at"])
    op.create_table(
        "request_args",
        sa.Column("request_id", Ascii(20, fixed=True), primary_key=True),
        sa.Column("name", sa.String(100), primary_key=True),
        sa.Column("value", sa.String(200), nullable=False),
    )
    op.create_index("request_args_name_value", "request_args", ["name", "value", "request_id"])
