"""One change to the database, and how the changes of one kind in a batch are made together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from spincycle_server.database.transaction import Transaction


class Write(ABC):
    """One change. The writes of one kind that are in a batch are done together.

    Attributes:
        order: Kinds with a lower number come first in a transaction.
        is_reserved: Whether the kind has places in the queue that others do not.
    """

    order: ClassVar[int] = 0
    is_reserved: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def apply_all(cls, transaction: Transaction, writes: Sequence[Any]) -> Sequence[Any]:
        """Does the writes in the open transaction.

        Returns:
            The result of each write. One that is a SpinCycleError is raised for its caller; such a
            write has changed nothing.

        Raises:
            Exception: None of the writes could be done; the transaction is rolled back.
        """
