"""What sequences of running requests have asked of the keys of limits."""

import sqlalchemy as sa

from spincycle_server.database.types import Ascii, BoundedText, blob
from spincycle_server.store.migrations.missing import add_indexes, add_table, drop_index

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the table, and the sequences to an index."""
    add_indexes("limit_claims", {"limit_claims_sequence": ["request_id", "sequence_id"]})
    drop_index("limit_claims", "limit_claims_request")
    add_table(
        "sequence_claims",
        [
            sa.Column("request_id", Ascii(20), primary_key=True),
            sa.Column("sequence_id", Ascii(4), primary_key=True),
            sa.Column("epoch", sa.BigInteger, nullable=False),
            sa.Column("number", sa.BigInteger, nullable=False),
            sa.Column("body", blob(), nullable=False),
            sa.Column("reason", Ascii(40), nullable=False),
            sa.Column("error", BoundedText(1000), nullable=False),
        ],
    )
