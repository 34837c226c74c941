"""Completes shortened request ids: users may write the beginning of an id that no other request has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_server.request_ids import is_beginning

if TYPE_CHECKING:
    from spincycle_server.identity import Identity
    from spincycle_server.identity.permissions import Permissions
    from spincycle_server.store import Store

MOST_NAMED = 5
"""The maximum number of ids that an error names."""

MOST_READ = 1000
"""The maximum number of requests that are read for a caller who may not see all of them."""


class NamesRequest(Protocol):
    """A message that names a request."""

    request_id: str


class RequestPrefixes:
    """Completes the ids of requests.

    Args:
        store: Has the requests.
        permissions: Decides which requests a caller may see. The others do not count.
    """

    def __init__(self, store: Store, permissions: Permissions) -> None:
        self._store = store
        self._permissions = permissions

    async def complete(self, message: NamesRequest, identity: Identity) -> None:
        """Replaces the beginning of an id by the id. A whole id costs nothing: it is not looked up.

        If no request has such an id, the message stays as it is.

        Raises:
            InvalidArgumentError: Several requests have such an id. Reason: AMBIGUOUS_REQUEST_ID.
        """
        beginning = message.request_id
        if not is_beginning(beginning):
            return
        visible = self._permissions.visible_types(identity)
        limit = MOST_NAMED + 1 if visible.shows_all else MOST_READ
        rows = await self._store.ids_beginning_with(beginning, limit)
        found = [request_id for request_id, request_type in rows if visible.has(request_type)]
        if len(found) > 1 or len(rows) == limit:
            raise _ambiguous(beginning, found)
        if found:
            message.request_id = found[0]


def _ambiguous(beginning: str, found: list[str]) -> InvalidArgumentError:
    some = ", ".join(found[:MOST_NAMED]) + (", ..." if len(found) > MOST_NAMED else "")
    return InvalidArgumentError(
        f"several requests have an id that begins with {beginning}: write more of the id"
        + (f" ({some})" if some else ""),
        reason="AMBIGUOUS_REQUEST_ID",
        request_id=beginning,
        field="request_id",
    )
