"""The list of limits that users see: who holds their keys, and who waits for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spincycle_grpc.v1 import request_manager_pb2 as messages
from spincycle_server.request_manager.page_tokens import checked_page_size, page_token, place_of

if TYPE_CHECKING:
    from spincycle_server.identity.access import VisibleTypes
    from spincycle_server.store import Store

MAX_KEYS = 100
"""The maximum number of keys in a page, also over HTTP."""

_SCOPE = b"ListLimits"


class LimitList:
    """Lists the keys of limits.

    Args:
        store: Knows who holds them.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def list(
        self, request: messages.ListLimitsRequest, visible: VisibleTypes
    ) -> messages.ListLimitsResponse:
        """Returns a page of the keys, with the requests that the caller may view.

        Args:
            request: Which page.
            visible: The types of requests that the caller may view.

        Raises:
            InvalidArgumentError: The page size or the page token is invalid.
        """
        scope = b"\0".join((_SCOPE, request.key.encode(), request.request_id.encode()))
        behind = place_of(request.page_token, scope, _limit_id) or ""
        size = min(checked_page_size(request.page_size) or MAX_KEYS, MAX_KEYS)
        page = await self._store.limits.page(
            request.key, behind, size, visible.has, request_id=request.request_id
        )
        response = messages.ListLimitsResponse(limits=page.limits)
        if page.last_id:
            response.next_page_token = page_token(scope, (page.last_id,))
        return response


def _limit_id(limit_id: str) -> str:
    if not isinstance(limit_id, str) or len(limit_id) > 32:
        raise ValueError("not a limit")
    return limit_id
