"""Plans: what Create would make, whole over HTTP and in pages over gRPC.

A plan is stored nowhere. If a server does not remember it from the page before, it builds the request again,
with job ids from the same seed. The token has the seed and a digest of the chain: a page of another chain is
refused.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from random import Random, SystemRandom
from typing import TYPE_CHECKING, NamedTuple

from spincycle_grpc.errors import FailedPreconditionError
from spincycle_grpc.v1 import request_manager_pb2 as messages
from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.job_pb2 import JobChain
from spincycle_grpc.v1.request_pb2 import Request, RequestArg
from spincycle_server.graph.job_ids import job_ids
from spincycle_server.large_work import LARGE, run_sized
from spincycle_server.request_manager.job_chain_pages import JOB_BYTES, job_chain_page
from spincycle_server.request_manager.page_tokens import checked_page_size, is_whole, page_token, place_of
from spincycle_server.request_manager.request_views import omit_args
from spincycle_server.store.pages import PAGE_BYTES

if TYPE_CHECKING:
    from spincycle_server.graph import BuiltRequest
    from spincycle_server.request_manager.build_pool import BuildPool
    from spincycle_server.request_manager.paged_chains import PagedChains
    from spincycle_server.rpc import CallContext

_JOB_ID = re.compile("[0-9A-Za-z]{1,4}")
_DIGEST = re.compile("[0-9a-f]{24}")
_SEEDS = 2**53
_FIRST_PAGE = PAGE_BYTES // 2
"""Bytes of the job chain in the first page of a plan, which also has the args."""

_seeds = SystemRandom()


class _Place(NamedTuple):
    """The place of the last job of a page.

    Attributes:
        seed: The seed of the job ids.
        digest: The digest of the whole chain.
        job_id: The id of the job.
    """

    seed: int
    digest: str
    job_id: str


@dataclass(frozen=True, slots=True)
class _PageCall:
    """A call for a page of a plan.

    Attributes:
        request: The call.
        args: Its args as Python values.
        context: The context of the call.
        scope: What must stay the same for all pages.
        page_size: The maximum number of jobs in the page.
    """

    request: messages.PlanRequest
    args: Mapping[str, object]
    context: CallContext
    scope: bytes
    page_size: int


class Planner:
    """Plans requests.

    Args:
        build_pool: Builds the requests.
        chains: Keeps the chains whose next pages will be asked for.
    """

    def __init__(self, build_pool: BuildPool, chains: PagedChains) -> None:
        self._build_pool = build_pool
        self._chains = chains

    async def plan(
        self, request: messages.PlanRequest, args: Mapping[str, object], context: CallContext
    ) -> messages.PlanResponse:
        """Returns a plan, or over gRPC a page of it.

        Args:
            request: The call.
            args: Its args as Python values.
            context: The context of the call.

        Raises:
            InvalidArgumentError: The page size or the page token is invalid.
            FailedPreconditionError: The chain is not the one of the first page. Reason: PLAN_CHANGED.
            SpinCycleError: As for `BuildPool.build`.
        """
        size = context.received.size_of(request)
        if context.transport != "grpc":
            built = await self._build_pool.build(request.type, args, "", is_large=size > LARGE)
            recorded = built.request.args
            return messages.PlanResponse(
                request=await run_sized(size, _planned, request.type, context, built.job_chain, recorded)
            )
        scope = await run_sized(size, _scope, request, context)
        behind = place_of(request.page_token, scope, _place)
        page_size = checked_page_size(request.page_size)
        call = _PageCall(request, args, context, scope, page_size)
        return await (self._first_page(call) if behind is None else self._next_page(call, behind))

    async def _first_page(self, call: _PageCall) -> messages.PlanResponse:
        seed = _seeds.randrange(_SEEDS)
        built = await self._build(call, seed)

        def answer() -> tuple[messages.PlanResponse, int]:
            page = job_chain_page(built.job_chain, "", call.page_size, _FIRST_PAGE)
            planned = _planned(call.request.type, call.context, page.job_chain, built.request.args)
            planned.total_jobs = len(built.job_chain.jobs)
            if sum(arg.ByteSize() for arg in planned.args) > _FIRST_PAGE:
                omit_args(planned)
            token = ""
            if page.last:
                token = page_token(call.scope, _Place(seed, _digest(built.job_chain), page.last))
            return messages.PlanResponse(request=planned, next_page_token=token), page.whole_bytes

        response, whole_bytes = await run_sized(_work(call, built.job_chain), answer)
        if response.next_page_token:
            self._chains.keep(_key(call, seed), built.job_chain, whole_bytes)
        return response

    async def _next_page(self, call: _PageCall, behind: _Place) -> messages.PlanResponse:
        key = _key(call, behind.seed)
        job_chain = self._chains.take(key)
        if job_chain is None:
            job_chain = (await self._build(call, behind.seed)).job_chain
            if await run_sized(_work(call, job_chain), _digest, job_chain) != behind.digest:
                raise FailedPreconditionError(
                    "the plan is not the one of the first page, because the specs changed, or what jobs read "
                    "when they are created: plan again",
                    reason="PLAN_CHANGED",
                )
        page = await run_sized(
            _work(call, job_chain), job_chain_page, job_chain, behind.job_id, call.page_size
        )
        planned = _planned(call.request.type, call.context, page.job_chain, ())
        planned.total_jobs = len(job_chain.jobs)
        token = ""
        if page.last:
            self._chains.keep(key, job_chain, page.whole_bytes)
            token = page_token(call.scope, behind._replace(job_id=page.last))
        return messages.PlanResponse(request=planned, next_page_token=token)

    async def _build(self, call: _PageCall, seed: int) -> BuiltRequest:
        ids = job_ids(Random(seed))  # noqa: S311 (job ids are not secret)
        is_large = call.context.received.size_of(call.request) > LARGE
        return await self._build_pool.build(call.request.type, call.args, "", is_large=is_large, ids=ids)


def _planned(
    request_type: str, context: CallContext, job_chain: JobChain, args: Iterable[RequestArg]
) -> Request:
    return Request(
        type=request_type,
        state=state_pb2.STATE_PENDING,
        user=context.caller.name,
        args=args,
        job_chain=job_chain,
        total_jobs=len(job_chain.jobs),
    )


def _scope(request: messages.PlanRequest, context: CallContext) -> bytes:
    """Returns what must stay the same for all pages: the caller, the type and the args."""
    asked = messages.CreateRequest(type=request.type, args=request.args, user=context.caller.name)
    return b"Plan " + asked.SerializeToString(deterministic=True)


def _key(call: _PageCall, seed: int) -> bytes:
    return hashlib.sha256(call.scope).digest() + seed.to_bytes(8, "big")


def _work(call: _PageCall, job_chain: JobChain) -> int:
    return len(call.scope) + len(job_chain.jobs) * JOB_BYTES


def _digest(job_chain: JobChain) -> str:
    return hashlib.sha256(job_chain.SerializeToString(deterministic=True)).hexdigest()[:24]


def _place(seed: int, digest: str, job_id: str) -> _Place:
    if not is_whole(seed, _SEEDS) or not _DIGEST.fullmatch(digest) or not _JOB_ID.fullmatch(job_id):
        raise ValueError("not a place")
    return _Place(seed, digest, job_id)
