"""The types of requests that a find may return."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqlalchemy import ColumnElement
from sqlalchemy.engine import Connection

from spincycle_server.store.stored_types import stored_types

MAX_SCANNED = 8
"""If there are more types than this, they are not read one by one through the index of types."""

RARE = 10
"""If fewer than one in so many of the newest requests may be returned, each type is read by itself."""


@dataclass
class FoundTypes:
    """The types of requests that a find may return.

    Args:
        connection: An open connection.
        wanted: The type that the filter names; "" for all.
        only: The types that the caller may see; None for all.
        hidden: The types that the caller may not see.
    """

    connection: Connection
    wanted: str
    only: Collection[str] | None
    hidden: Collection[str]

    @cached_property
    def names(self) -> list[str] | None:
        """The types; None for all except the hidden ones."""
        names = None if self.only is None else {*self.only}
        if self.wanted:
            names = {self.wanted} if names is None else names & {self.wanted}
        elif names is None and self.hidden:
            names = stored_types(self.connection)
        return None if names is None else _storable(names - {*self.hidden})

    @property
    def may_be_scanned(self) -> bool:
        """Whether the types are known and few enough to be read one by one."""
        return self.names is not None and len(self.names) <= MAX_SCANNED

    def are_rare(self, newest: Sequence[Any]) -> bool:
        """Whether it is faster to read each type than all requests.

        Args:
            newest: Rows of the newest requests, of any type.
        """
        found = [row for row in newest if row.type in (self.names or ())]
        return len(found) * RARE < len(newest)

    def conditions(self, column: Any) -> tuple[ColumnElement[bool], ...]:
        """Returns the conditions on the type of a request."""
        if self.names is not None:
            return (column.in_(self.names),)
        hidden = _storable(self.hidden)
        return (column.not_in(hidden),) if hidden else ()


def _storable(types: Collection[str]) -> list[str]:
    """Returns the types that a database can have."""
    return sorted(name for name in types if "\0" not in name)
