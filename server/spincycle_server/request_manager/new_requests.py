"""New requests: stored, then delivered to the runner that has them, or counted among those that wait."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spincycle_server.telemetry.spans import OpenSpan, part_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from spincycle_grpc.v1.job_pb2 import JobChain
    from spincycle_grpc.v1.request_manager_pb2 import CreateRequest
    from spincycle_grpc.v1.request_pb2 import Request
    from spincycle_server.capabilities import Requirement
    from spincycle_server.request_manager.dispatcher import Dispatcher
    from spincycle_server.store import IdempotencyKey, Store
    from spincycle_server.store.audit import EventRow


class NewRequests:
    """Adds new requests.

    Args:
        store: Stores them.
        dispatcher: Picks their runners, and dispatches those that wait.
    """

    def __init__(self, store: Store, dispatcher: Dispatcher) -> None:
        self._store = store
        self._dispatcher = dispatcher

    async def add(
        self,
        request: Request,
        create_request: CreateRequest,
        job_chain: JobChain,
        requirement: Requirement,
        *,
        chain_json: Callable[[], bytes] | None = None,
        key: IdempotencyKey | None,
        event: EventRow | None,
        work: float,
        span: OpenSpan | None,
    ) -> None:
        """Stores a request and starts it. If it has to wait, its field `waiting` gets the reason.

        A request with limits is stored without a runner, because the transaction that stores it decides
        whether it gets its keys.

        Args:
            request: The request, PENDING.
            create_request: The message that asked for it.
            job_chain: Its chain.
            requirement: What it needs of a runner.
            chain_json: Returns the JSON of the chain; None to encode it.
            key: The idempotency key of the call, if it has one.
            event: The row of its audit event, which is stored in the same transaction.
            work: How long it takes to encode, see `work_of`.
            span: The span of the call, if it is recorded.

        Raises:
            CreatedBeforeError: The key has created the same request before. Nothing is stored.
            SpinCycleError: See `Store.create_request`; or too many requests wait because no live runner can
                run them (TOO_MANY_BLOCKED). Nothing is stored.
        """
        self._dispatcher.check_blocked_limit(requirement)
        limited = bool(job_chain.limits)
        runner = None if limited else await self._dispatcher.pick_runner(requirement)
        try:
            with part_of(span, "commit"):
                made = await self._store.create_request(
                    request,
                    create_request,
                    job_chain,
                    runner,
                    key,
                    event=event,
                    requirement=requirement,
                    chain_json=chain_json,
                    work=work,
                    may_wait=not limited or self._dispatcher.may_block,
                )
        except BaseException:
            if runner is not None:
                self._dispatcher.not_used(runner)
            raise
        if runner is not None and made.assignment is not None:
            self._dispatcher.deliver(runner, made.assignment, job_chain)
        else:
            request.waiting = await self._dispatcher.created_pending(
                request.id, requirement, waits_for_limit=made.waits_for_limit
            )
