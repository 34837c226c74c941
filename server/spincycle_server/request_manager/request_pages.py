"""The answers of Find, GetLog and GetJobChain: pages, or everything.

Callers over gRPC always get pages, because their clients accept 4 MiB. Callers over HTTP get everything, as
from the original, unless they ask for pages.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from spincycle_grpc.v1 import request_manager_pb2 as messages
from spincycle_server.large_work import run_sized
from spincycle_server.request_manager.job_chain_pages import JOB_BYTES, job_chain_page
from spincycle_server.request_manager.page_tokens import checked_page_size, is_whole, page_token, place_of
from spincycle_server.request_manager.request_views import hide_data, show_as_original
from spincycle_server.store.found_pages import FoundPosition
from spincycle_server.store.log_filter import ALL, LogFilter, LogPosition
from spincycle_server.store.log_pages import MAX_OUTPUT

if TYPE_CHECKING:
    from collections.abc import Collection

    from spincycle_grpc.v1.job_pb2 import JobChain
    from spincycle_server.request_manager.paged_chains import PagedChains
    from spincycle_server.rpc import CallContext
    from spincycle_server.store import Store

_REQUEST_ID = re.compile("[0-9a-zA-Z]{1,20}")
_JOB_ID = re.compile("[0-9A-Za-z]{1,4}")


class RequestPages:
    """Reads pages of requests, logs and job chains.

    Args:
        store: Has the requests.
        chains: Keeps the chains whose next pages will be asked for.
    """

    def __init__(self, store: Store, chains: PagedChains) -> None:
        self._store = store
        self._chains = chains

    async def find(
        self,
        request: messages.FindRequest,
        context: CallContext,
        *,
        only_types: Collection[str] | None,
        hidden_types: Collection[str],
    ) -> messages.FindResponse:
        """Returns the requests that match a filter, of the types that the caller may view.

        Raises:
            InvalidArgumentError: The filter, the page size or the page token is invalid.
            DeadlineExceededError: A statement took too long. Reason: FIND_TOO_SLOW.
        """
        types: dict[str, Any] = {"only_types": only_types, "hidden_types": hidden_types}
        if not _is_paged(request, context):
            found = await self._store.find_requests(request.filter, **types)
            show_as_original(found, context)
            return messages.FindResponse(requests=found)
        scope = b"Find " + request.filter.SerializeToString(deterministic=True)
        behind = place_of(request.page_token, scope, _found_position)
        size = checked_page_size(request.page_size)
        page = await self._store.find_page(request.filter, behind, size, **types)
        token = page_token(scope, page.last) if page.last is not None else ""
        return messages.FindResponse(requests=page.requests, next_page_token=token)

    async def log(self, request: messages.GetLogRequest, context: CallContext) -> messages.GetLogResponse:
        """Returns the job log of a request.

        Raises:
            NotFoundError: The request does not exist.
            InvalidArgumentError: The page size or the page token is invalid.
        """
        wanted = _log_filter(request)
        if not _is_paged(request, context):
            return messages.GetLogResponse(entries=await self._store.get_log(request.request_id, wanted))
        scope = b"GetLog " + request.request_id.encode()
        if wanted != ALL:
            scope += repr((*sorted(wanted.states), wanted)).encode()
        behind = place_of(request.page_token, scope, _log_position)
        size = checked_page_size(request.page_size)
        # JSON cannot say that output was cut.
        max_output = MAX_OUTPUT if context.transport == "grpc" else None
        page = await self._store.get_log_page(request.request_id, behind, size, max_output, wanted)
        token = page_token(scope, page.last) if page.last is not None else ""
        return messages.GetLogResponse(entries=page.entries, next_page_token=token)

    async def job_chain(
        self, request: messages.GetJobChainRequest, context: CallContext
    ) -> messages.GetJobChainResponse:
        """Returns the job chain of a request as created.

        Raises:
            NotFoundError: The request does not exist.
            InvalidArgumentError: The page size or the page token is invalid.
        """
        scope = b"GetJobChain " + request.request_id.encode()
        behind = place_of(request.page_token, scope, _job_id)
        size = checked_page_size(request.page_size)
        if not _is_paged(request, context):
            return messages.GetJobChainResponse(job_chain=await self._job_chain(request.request_id))
        job_chain = self._chains.take(scope) if behind is not None else None
        if job_chain is None:
            job_chain = await self._job_chain(request.request_id)
        page = await run_sized(len(job_chain.jobs) * JOB_BYTES, job_chain_page, job_chain, behind or "", size)
        token = ""
        if page.last:
            self._chains.keep(scope, job_chain, page.whole_bytes)
            token = page_token(scope, (page.last,))
        return messages.GetJobChainResponse(job_chain=page.job_chain, next_page_token=token)

    async def _job_chain(self, request_id: str) -> JobChain:
        job_chain = await self._store.get_job_chain(request_id)
        hide_data(job_chain)
        return job_chain


def _is_paged(
    request: messages.FindRequest | messages.GetLogRequest | messages.GetJobChainRequest, context: CallContext
) -> bool:
    return context.transport == "grpc" or request.page_size != 0 or request.page_token != ""


def _found_position(created_at: int, request_id: str, left: int) -> FoundPosition:
    is_valid = is_whole(created_at, 2**57) and is_whole(left, 2**64)
    _check(is_valid and bool(_REQUEST_ID.fullmatch(request_id)))
    return FoundPosition(created_at, request_id, left)


def _log_position(job_id: str, number: int, epoch: int = 0, ordinal: int = 0) -> LogPosition:
    _check(is_whole(number, 2**31) and bool(_JOB_ID.fullmatch(job_id)))
    _check(is_whole(epoch, 2**63) and is_whole(ordinal, 2**63))
    return LogPosition(job_id, number, epoch, ordinal)


def _log_filter(request: messages.GetLogRequest) -> LogFilter:
    return LogFilter(
        frozenset(request.states),
        request.job_id,
        request.latest_tries,
        request.omit_noops,
        request.newest_first,
    )


def _job_id(job_id: str) -> str:
    _check(bool(_JOB_ID.fullmatch(job_id)))
    return job_id


def _check(is_valid: bool) -> None:
    if not is_valid:
        raise ValueError("not a place")
