"""Marks the requests that an original Spin Cycle creates."""

from alembic import op

from spincycle_server.database.types import Ascii

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Gives `requests.runner_id` the default that earlier versions of 0002 did not give it.

    The rows that are there keep null: their requests count as created by this project. SQLite cannot change a
    default, and no original uses SQLite.
    """
    if op.get_context().dialect.name != "sqlite":
        op.alter_column(
            "requests",
            "runner_id",
            server_default="original",
            existing_type=Ascii(20),
            existing_nullable=True,
        )
