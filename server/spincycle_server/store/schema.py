"""The tables. Those of the original bear its names and columns; what is added is nullable or has a default.

Ids are compared byte by byte, and times are kept in microseconds, on every database.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    TypeDecorator,
    false,
)
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeEngine

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_TEXT_BYTES = 65_535


class Ascii(TypeDecorator[str]):
    """A short ASCII text that is compared byte by byte: BINARY or VARBINARY on MySQL, as in the original."""

    impl = String
    cache_ok = True

    def __init__(self, length: int, *, fixed: bool = False) -> None:
        super().__init__(length)
        self.length = length
        self.fixed = fixed

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Chooses the type for the database."""
        if dialect.name in ("mysql"):
            kind = mysql.BINARY if self.fixed else mysql.VARBINARY
            return dialect.type_descriptor(kind(self.length))
        if dialect.name == "postgresql":
            return dialect.type_descriptor(String(self.length, collation="C"))
        return dialect.type_descriptor(String(self.length))

    def process_bind_param(self, value: str | None, dialect: Dialect) -> Any:
        """Gives MySQL bytes, and no database a zero byte, which PostgreSQL refuses."""
        if value is not None and "\0" in value:
            value = value.replace("\0", "\N{REPLACEMENT CHARACTER}")
        if value is None or dialect.name not in ("mysql"):
            return value
        return value.encode()

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        """Takes MySQL's bytes, without the zeros that pad a short id."""
        if isinstance(value, bytes):
            return value.rstrip(b"\0").decode(errors="replace")
        return None if value is None else str(value)


class BoundedText(TypeDecorator[str]):
    """A text that is cut to what its column holds, and freed of what PostgreSQL cannot store.

    Args:
        length: Characters of a VARCHAR; None: a TEXT, of which MySQL keeps 65,535 bytes.
    """

    impl = Text
    cache_ok = True

    def __init__(self, length: int | None = None) -> None:
        super().__init__()
        self.length = length

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Chooses the type for the database."""
        return dialect.type_descriptor(Text() if self.length is None else String(self.length))

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Cuts it."""
        if value is None:
            return None
        if "\0" in value:
            value = value.replace("\0", "\N{REPLACEMENT CHARACTER}")
        if self.length is not None:
            return value[: self.length]
        if len(value) * 4 > _TEXT_BYTES:
            value = value.encode()[:_TEXT_BYTES].decode(errors="ignore")
        return value

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        """Takes bytes too, which a column of an original database may hold."""
        return value.decode(errors="replace") if isinstance(value, bytes) else value


class Microseconds(TypeDecorator[int]):
    """A time in microseconds since the Unix epoch: TIMESTAMP(6) where there is such a type."""

    impl = BigInteger
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Chooses the type for the database."""
        if dialect.name in ("mysql"):
            return dialect.type_descriptor(mysql.TIMESTAMP(fsp=6))
        if dialect.name == "postgresql":
            return dialect.type_descriptor(postgresql.TIMESTAMP(precision=6, timezone=True))
        return dialect.type_descriptor(BigInteger())

    def process_bind_param(self, value: int | None, dialect: Dialect) -> Any:
        """Gives databases with a type for times a time."""
        if value is None or dialect.name == "sqlite":
            return value
        time = _EPOCH + value * _MICROSECOND
        return time if dialect.name == "postgresql" else time.replace(tzinfo=None)

    def process_result_value(self, value: Any, dialect: Dialect) -> int | None:
        """Takes a time, which is UTC."""
        if isinstance(value, datetime):
            return (value.replace(tzinfo=value.tzinfo or UTC) - _EPOCH) // _MICROSECOND
        return None if value is None else int(value)


class StateNumber(TypeDecorator[int]):
    """The number of a State."""

    impl = SmallInteger
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Chooses the type for the database."""
        return dialect.type_descriptor(mysql.TINYINT() if dialect.name == "mysql" else SmallInteger())

    def process_bind_param(self, value: int | None, dialect: Dialect) -> int | None:
        """Makes it a plain number: not all drivers know enums."""
        return None if value is None else int(value)


def _blob() -> TypeEngine[bytes]:
    return LargeBinary().with_variant(mysql.LONGBLOB(), "mysql")


metadata = MetaData()

requests = Table(
    "requests",
    metadata,
    Column("request_id", Ascii(20, fixed=True), primary_key=True),
    Column("type", Ascii(75), nullable=False),
    Column("state", StateNumber, nullable=False),
    Column("user", BoundedText(100), nullable=True),
    Column("created_at", Microseconds, nullable=False),
    Column("started_at", Microseconds, nullable=True),
    Column("finished_at", Microseconds, nullable=True),
    Column("total_jobs", Integer, nullable=False, server_default="0"),
    Column("finished_jobs", Integer, nullable=False, server_default="0"),
    Column("jr_url", String(2000), nullable=True),
    # Counts the assignments of the request to runners.
    Column("epoch", BigInteger, nullable=False, server_default="0"),
    # The runner of the newest assignment.
    Column("runner_id", Ascii(20), nullable=True),
    # Whether a user wants the request stopped, though its runner may not have been told.
    Column("stop_requested", Boolean, nullable=False, server_default=false()),
    Index("created_at", "created_at"),
    Index("finished_at", "finished_at"),
    Index("state", "state", "created_at"),
    # On PostgreSQL these two have the expression `created_at AT TIME ZONE 'UTC'`.
    Index("requests_type", "type", "state", "created_at"),
    Index("requests_user", "user", "state", "created_at"),
)

request_archives = Table(
    "request_archives",
    metadata,
    Column("request_id", Ascii(20, fixed=True), primary_key=True),
    Column("create_request", _blob(), nullable=False),
    Column("args", _blob(), nullable=True),
    Column("job_chain", _blob(), nullable=False),
)

job_log = Table(
    "job_log",
    metadata,
    Column("request_id", Ascii(20, fixed=True), primary_key=True),
    Column("job_id", Ascii(4, fixed=True), primary_key=True),
    Column("try", SmallInteger().with_variant(Integer(), "sqlite", "postgresql"), primary_key=True),
    Column("name", BoundedText(100), nullable=False),
    Column("type", Ascii(75), nullable=False),
    Column("state", StateNumber, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger, nullable=True),
    Column("error", BoundedText, nullable=True),
    Column("exit", BigInteger, nullable=True),
    Column("stdout", _blob(), nullable=True),
    Column("stderr", _blob(), nullable=True),
    # The TryReport that the entry came in, as it has what the log lacks: null for entries of other origin.
    Column("job_data", _blob(), nullable=True),
    Column("sequence_try", Integer, nullable=True),
    Column("epoch", BigInteger, nullable=True),
    Column("ordinal", BigInteger, nullable=True),
    Column("is_last", Boolean, nullable=True),
)

suspended_job_chains = Table(
    "suspended_job_chains",
    metadata,
    Column("request_id", Ascii(20, fixed=True), primary_key=True),
    Column("suspended_job_chain", _blob(), nullable=False),
    Column("rm_host", String(64), nullable=True),
    Column("updated_at", Microseconds, nullable=False),
    Column("suspended_at", Microseconds, nullable=False),
    # The assignment that was suspended; null if it was none of this project's.
    Column("epoch", BigInteger, nullable=True),
    # Whether the chain is dropped when it is resumed. One that somebody else suspended is kept until the
    # request ends: the tries before it are not in the job log as those of this project's runners are.
    Column("is_dropped", Boolean, nullable=True),
)

runners = Table(
    "runners",
    metadata,
    Column("runner_id", Ascii(20), primary_key=True),
    Column("url", String(2000), nullable=False),
    Column("grpc_address", String(300), nullable=False),
    Column("draining", Boolean, nullable=False),
    Column("lease_expires_at", BigInteger, nullable=False),
    Index("runners_lease_expires_at", "lease_expires_at"),
)
"""The Job Runners. A lease ends at a time in microseconds by the database's clock."""

request_args = Table(
    "request_args",
    metadata,
    Column("request_id", Ascii(20, fixed=True), primary_key=True),
    Column("name", BoundedText(100), primary_key=True),
    Column("value", BoundedText(200), nullable=False),
    # The request's, in microseconds since the Unix epoch, for the index.
    Column("created_at", BigInteger, nullable=False, server_default="0"),
    Index("request_args_newest", "name", "value", "created_at", "request_id"),
)
"""The args of requests as text, to find requests by them. Long values are cut; archives have them whole."""

writers = Table(
    "writers",
    metadata,
    Column("writer_id", Ascii(20), primary_key=True),
    Column("batch", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)
"""The newest transaction of each process that writes, so that one whose answer was lost can be looked up."""

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("key_hash", LargeBinary(32).with_variant(mysql.BINARY(32), "mysql"), primary_key=True),
    Column("body_hash", LargeBinary(32).with_variant(mysql.BINARY(32), "mysql"), nullable=False),
    Column("request_id", Ascii(20, fixed=True), nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Index("idempotency_keys_expires_at", "expires_at"),
)
"""Which request was created under a key, with what body. A key expires by the database's clock."""
