"""Pages of the requests that match a filter.

A page starts behind the last request of the page before, by time of creation and id. So requests that are
created later do not shift the pages.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from itertools import islice
from typing import NamedTuple

from sqlalchemy.engine import Connection

from spincycle_grpc.v1.request_pb2 import Request, RequestFilter
from spincycle_server.store.ended_statements import REQUESTS_NOT_FOUND, explained_ends
from spincycle_server.store.finding import BLOCK, Finding
from spincycle_server.store.pages import PageRoom
from spincycle_server.store.rows import marked_request_of

_WAITING_BYTES = 1500
"""The room for the reason why a request waits, which later replaces a mark. No reason is longer."""

_MOST = 2**62
"""More requests than exist."""


class FoundPosition(NamedTuple):
    """The place of a request among those that match a filter.

    Attributes:
        created_at: When it was created, in microseconds since the Unix epoch.
        request_id: Its id.
        left: How many further requests the limit of the filter allows; 0 if the filter has no limit.
    """

    created_at: int
    request_id: str
    left: int


class RequestPage(NamedTuple):
    """Requests, and the position of the last one; None if there are no more requests."""

    requests: list[Request]
    last: FoundPosition | None


def find_page(
    connection: Connection,
    wanted: RequestFilter,
    behind: FoundPosition | None,
    page_size: int,
    *,
    only_types: Collection[str] | None = None,
    hidden_types: Collection[str] = (),
    statement_limit: float | None = None,
    is_given_up: Callable[[], bool] = lambda: False,
) -> RequestPage:
    """Returns a page of the requests that match a filter, newest first, then by id.

    Args:
        connection: An open connection.
        wanted: The filter. Its limit counts the requests of all pages, and its offset those before the first.
        behind: The last request of the page before; None for the first page.
        page_size: The maximum number of requests; 0 for no maximum.
        only_types: See `find_requests`.
        hidden_types: See `find_requests`.
        statement_limit: See `find_requests`.
        is_given_up: See `find_requests`.

    Raises:
        SpinCycleError: See `find_requests`.
    """
    connection = connection.execution_options(statement_limit=statement_limit)
    skipped = wanted.offset if behind is None and wanted.limit else 0
    limit = wanted.limit if behind is None else behind.left
    wanted_rows = min(limit or _MOST, page_size or _MOST) + 1
    position = None if behind is None else (behind.created_at, behind.request_id)
    with explained_ends(REQUESTS_NOT_FOUND):
        finding = Finding(connection, wanted, is_given_up, only_types, hidden_types, position)
        rows = islice(finding.rows(min(skipped + wanted_rows, BLOCK)), min(skipped, _MOST), None)
        room = PageRoom(page_size)
        requests: list[Request] = []
        last = None
        for row in rows:
            if limit and len(requests) == limit:
                return RequestPage(requests, None)
            request = marked_request_of(row)
            if not room.take(request.ByteSize() + (_WAITING_BYTES if request.waiting else 0)):
                left = limit - len(requests) if limit else 0
                return RequestPage(requests, FoundPosition(*last, left) if last is not None else None)
            requests.append(request)
            last = (row.created_at, row.request_id)
    return RequestPage(requests, None)
