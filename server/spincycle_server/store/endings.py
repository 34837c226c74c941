"""How requests end whose chains have `finally` parts: these run first.

Whoever wants to end such a request marks its row with the final state. The mark is committed first, and stays
whatever dies: whoever runs the chain next runs only the `finally` parts that it owes, and then ends it so. A
second stop lets these be skipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spincycle_grpc.state import State
from spincycle_server.store.request_rows import RequestRows


def ending_of(row: Mapping[str, Any]) -> State | None:
    """Returns the state in which a request is to end after its `finally` parts; None if it goes on."""
    return None if row["ending"] is None else State(row["ending"])


def end_after_finally(rows: RequestRows, row: Mapping[str, Any], state: State) -> bool:
    """Marks a request that has `finally` parts, so that it ends after them.

    Args:
        rows: The rows of the transaction.
        row: The row of the request, which has not ended.
        state: FAIL or STOPPED. A request that is to end already keeps its state.

    Returns:
        Whether it is marked now. False if it has no such parts, or is marked already.
    """
    if not row["has_finally"] or row["ending"] is not None:
        return False
    rows.change(row["request_id"], ending=state.value)
    return True


def must_fail(rows: RequestRows, row: Mapping[str, Any]) -> None:
    """Marks a request that has `finally` parts: it ends as FAIL after them, even if it is being stopped."""
    if row["has_finally"]:
        rows.change(row["request_id"], ending=State.FAIL.value)
