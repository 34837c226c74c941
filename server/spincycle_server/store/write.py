"""The base class of all writes. The writes of one kind in a batch are done together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from spincycle_server.database.transaction import Transaction


class Write(ABC):
    """One change of the database.

    Attributes:
        order: Kinds with a lower number come first in a transaction.
        is_reserved: Whether the kind may use the reserved places of the queue.
    """

    order: ClassVar[int] = 0
    is_reserved: ClassVar[bool] = False

    @property
    def request_ids(self) -> Iterable[str]:
        """The requests that the write may change in a way that watchers see."""
        return ()

    @classmethod
    @abstractmethod
    def apply_all(cls, transaction: Transaction, writes: Sequence[Any]) -> Sequence[Any]:
        """Does the writes in the open transaction.

        Returns:
            The result of each write. A SpinCycleError is raised to the caller of its write, which has
            then changed nothing.

        Raises:
            Exception: The writes could not be done. The transaction must be rolled back.
        """
