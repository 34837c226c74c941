"""What a session sets when it connects, whatever the defaults of the server, database or user are."""

from __future__ import annotations

from collections.abc import Mapping

POSTGRESQL_SETTINGS = {
    # Values are read and written in these forms.
    "datestyle": "ISO",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "bytea_output": "hex",
    "standard_conforming_strings": "on",
    # Commits are durable when they return, whatever the server's default is.
    "synchronous_commit": "on",
    # The pool keeps connections open.
    "idle_session_timeout": "0",
    "transform_null_equals": "off",
    "row_security": "on",
    # Statements take milliseconds, and to compile one takes up to half a second.
    "jit": "off",
}
"""Settings of each session. `client_encoding` is a parameter of the driver."""

MYSQL_SETTINGS = {
    # Times are UTC.
    "time_zone": "'+00:00'",
    # Defaults of the server or the user that would change what statements do.
    "sql_safe_updates": "0",
    "sql_select_limit": "18446744073709551615",
    "sql_auto_is_null": "0",
    "completion_type": "0",
    "foreign_key_checks": "1",
    "unique_checks": "1",
}
"""Settings of each session. The driver sends SET NAMES itself."""


def postgresql_options(settings: Mapping[str, str]) -> str:
    """Returns the parameter `options` of libpq."""
    return " ".join(f"-c {name}={_escaped(value)}" for name, value in settings.items())


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace(" ", "\\ ")


def mysql_assignments(settings: Mapping[str, str]) -> str:
    """Returns the assignments of a SET statement."""
    return ", ".join(f"{name} = {value}" for name, value in settings.items())
