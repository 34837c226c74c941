"""Column types that behave the same on every database.

Ids are compared byte by byte. Times have microseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, LargeBinary, SmallInteger, String, Text, TypeDecorator
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeEngine

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_OF_NAIVE = _EPOCH.replace(tzinfo=None)
_MICROSECOND = timedelta(microseconds=1)
_TEXT_BYTES = 65_535


class Ascii(TypeDecorator[str]):
    """A short ASCII text, compared byte by byte: BINARY or VARBINARY on MySQL, as in the original."""

    impl = String
    cache_ok = True

    def __init__(self, length: int, *, fixed: bool = False) -> None:
        super().__init__(length)
        self.length = length
        self.fixed = fixed

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Chooses the type for the database."""
        if dialect.name == "mysql":
            kind = mysql.BINARY if self.fixed else mysql.VARBINARY
            return dialect.type_descriptor(kind(self.length))
        if dialect.name == "postgresql":
            return dialect.type_descriptor(String(self.length, collation="C"))
        return dialect.type_descriptor(String(self.length))

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any] | None:
        """Returns a function that does nothing to most values. SQLAlchemy's calls several functions."""
        if dialect.name == "mysql":
            return super().bind_processor(dialect)

        def process(value: str | None) -> Any:
            return value if value is None or "\0" not in value else self.process_bind_param(value, dialect)

        return process

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        """Returns a function that decodes MySQL's bytes, and strips the zero bytes that pad a short id."""

        def process(value: Any) -> str | None:
            if isinstance(value, bytes):
                return value.rstrip(b"\0").decode(errors="replace")
            return None if value is None else str(value)

        return process

    def process_bind_param(self, value: str | None, dialect: Dialect) -> Any:
        """Encodes text for MySQL, and replaces zero bytes, which PostgreSQL refuses."""
        if value is not None and "\0" in value:
            value = value.replace("\0", "\N{REPLACEMENT CHARACTER}")
        if value is None or dialect.name != "mysql":
            return value
        return value.encode()


class BoundedText(TypeDecorator[str]):
    """A text that is truncated to fit its column. Zero bytes are replaced, because PostgreSQL refuses them.

    Args:
        length: The length of a VARCHAR in characters; None for a TEXT, which on MySQL holds 65,535 bytes.
    """

    impl = Text
    cache_ok = True

    def __init__(self, length: int | None = None) -> None:
        super().__init__()
        self.length = length

    @property
    def fits(self) -> int:
        """The number of characters that fit into the column, whatever they are."""
        return _TEXT_BYTES // 4 if self.length is None else self.length

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Chooses the type for the database."""
        return dialect.type_descriptor(Text() if self.length is None else String(self.length))

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any]:
        """Returns a function that does nothing to most values. SQLAlchemy's calls several functions."""
        fits = self.fits

        def process(value: str | None) -> str | None:
            if value is None or (len(value) <= fits and "\0" not in value):
                return value
            return self.process_bind_param(value, dialect)

        return process

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Truncates the text and replaces zero bytes."""
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
        """Decodes bytes, which a column of an original's database may hold."""
        return value.decode(errors="replace") if isinstance(value, bytes) else value


class Microseconds(TypeDecorator[int]):
    """A time in microseconds since the Unix epoch, stored as TIMESTAMP(6) except on SQLite."""

    impl = BigInteger
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Chooses the type for the database."""
        if dialect.name == "mysql":
            return dialect.type_descriptor(mysql.TIMESTAMP(fsp=6))
        if dialect.name == "postgresql":
            return dialect.type_descriptor(postgresql.TIMESTAMP(precision=6, timezone=True))
        return dialect.type_descriptor(BigInteger())

    def process_bind_param(self, value: int | None, dialect: Dialect) -> Any:
        """Converts to a datetime, except on SQLite."""
        if value is None or dialect.name == "sqlite":
            return value
        time = _EPOCH + value * _MICROSECOND
        return time if dialect.name == "postgresql" else time.replace(tzinfo=None)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        """Returns a function that converts a datetime, which is in UTC."""

        def process(value: Any) -> int | None:
            if isinstance(value, datetime):
                return (value - (_EPOCH if value.tzinfo else _EPOCH_OF_NAIVE)) // _MICROSECOND
            return None if value is None else int(value)

        return process


class StateNumber(TypeDecorator[int]):
    """The number of a State."""

    impl = SmallInteger
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Chooses the type for the database."""
        return dialect.type_descriptor(mysql.TINYINT() if dialect.name == "mysql" else SmallInteger())

    def process_bind_param(self, value: int | None, dialect: Dialect) -> int | None:
        """Converts enums to plain numbers, because some drivers do not know enums."""
        return None if value is None else int(value)


def blob() -> TypeEngine[bytes]:
    """Returns a type for bytes of any length: LONGBLOB on MySQL."""
    return LargeBinary().with_variant(mysql.LONGBLOB(), "mysql")
