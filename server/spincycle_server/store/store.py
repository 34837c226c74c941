"""The Store: everything that a Request Manager keeps, behind coroutines."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeAlias

from spincycle_grpc.job_paths import count_tasks
from spincycle_grpc.state import State
from spincycle_grpc.v1 import request_manager_pb2
from spincycle_grpc.v1.audit_pb2 import AuditEvent, AuditFilter
from spincycle_grpc.v1.job_log_pb2 import JobLog
from spincycle_grpc.v1.job_pb2 import JobChain, SuspendedJobChain
from spincycle_grpc.v1.output_pb2 import OutputStream
from spincycle_grpc.v1.request_pb2 import Request, RequestFilter
from spincycle_grpc.v1.runner_reports_pb2 import Assignment, ChainReport, RefusedReport, RunnerInfo
from spincycle_grpc.wire import encode
from spincycle_server.capabilities import (
    FINALLY,
    KNOWS_ALL,
    WAITS_FOR_LIMIT,
    Capabilities,
    Requirement,
)
from spincycle_server.database.engine import DatabaseOptions, statement_limit
from spincycle_server.database.joined_reads import JoinedReads
from spincycle_server.database.read_pool import ReadPool
from spincycle_server.large_work import LARGE, run_large, run_sized
from spincycle_server.store import (
    audit_listing,
    changes,
    finding,
    found_pages,
    idempotency_keys,
    job_logs,
    leases,
    log_pages,
    lookups,
    outputs,
    record,
    retries,
    suspended_chains,
)
from spincycle_server.store.api_tokens import TokensLook, TokensVersion, look_at_tokens
from spincycle_server.store.audit import EventRow, RecordEvents, event_row
from spincycle_server.store.audit_listing import EventPage
from spincycle_server.store.chain_reports import ApplyReports
from spincycle_server.store.counting import Count, RunningCounts, count_requests, count_running
from spincycle_server.store.creation import Created, creation_of
from spincycle_server.store.deliveries import Subscriptions, adder_of, wanted_occurrences
from spincycle_server.store.delivery_queue import DeliveryQueue
from spincycle_server.store.found_pages import FoundPosition, RequestPage
from spincycle_server.store.group_commit import GroupCommitWriter
from spincycle_server.store.held_limits import HeldLimits
from spincycle_server.store.idempotency_keys import ForgetKeys, HeldKey, IdempotencyKey
from spincycle_server.store.job_logs import RecordLog
from spincycle_server.store.leases import LiveRunner, LostRequest, RemoveRunner, RenewRunner, StoredRunner
from spincycle_server.store.limit_ledger import LimitsChanged
from spincycle_server.store.log_filter import ALL, LogFilter, LogPosition
from spincycle_server.store.log_pages import LogPage
from spincycle_server.store.metrics import StoreMetrics
from spincycle_server.store.opening import OpenDatabase, open_database
from spincycle_server.store.pauses import BeginPause, EndPause, HeldPause, PauseOutcome, pause_of
from spincycle_server.store.positions import Position, Span
from spincycle_server.store.record import Record
from spincycle_server.store.request_reads import RequestReads
from spincycle_server.store.requirements import Requirements
from spincycle_server.store.retries import CreateRetry
from spincycle_server.store.session_keys import AddSessionKey, StoredSessionKey, read_session_keys
from spincycle_server.store.states import (
    Assign,
    EndLostOriginal,
    Finish,
    Progress,
    Release,
    RequestStop,
    StopOutcome,
    StopUnassigned,
    Unassign,
    UnassignedStop,
)
from spincycle_server.store.suspended_chains import DropSuspended, FailSuspended, Suspend
from spincycle_server.store.waiting_approvals import WaitingApprovals
from spincycle_server.store.waiting_reasons import WaitingReasons
from spincycle_server.telemetry.requests import RequestEnded
from spincycle_server.telemetry.spans_of_requests import EndedRequest

_OnEvents: TypeAlias = Callable[[Iterable[object]], None]

_DEFAULTS = DatabaseOptions()
_FEW_JOBS = 500
"""A chain with more jobs is encoded in a thread. This many take a few milliseconds."""

_CHAIN_BYTES = 8
"""Bytes of a chain that are encoded as fast as one byte of args, which can have a value in two bytes."""


class Store:
    """The database of a Request Manager.

    Writes go through a group-commit writer, reads through a pool of threads. Every method may raise
    UnavailableError if the database cannot be used now.

    Attributes:
        requirements: What requests need of a runner, and the requests that wait for one.
        deliveries: The events that are sent to targets of notifications.
        limits: Who holds the keys of limits, and who waits for them.
        approvals: The approvals that requests wait for.
        reasons: Says why requests wait.
        metrics: Counts requests and transactions.
        is_audited: Whether the audit log records the requests that others stop at a limit.
    """

    def __init__(self, database: OpenDatabase, options: DatabaseOptions) -> None:
        engine = database.engine
        self._engine = engine
        self._lock = database.lock
        self._reader = ReadPool(database.reads, threads=options.connections, patience=options.timeout)
        self._statement_limit = statement_limit(options)
        self._writer = GroupCommitWriter(engine, patience=options.timeout)
        # New requests depend on no other write, so they have their own writer. SQLite allows only one.
        self._creator = (
            self._writer
            if engine.dialect.name == "sqlite"
            else GroupCommitWriter(engine, patience=options.timeout, name="creations")
        )
        self._requests = RequestReads(self._reader)
        self._keys: JoinedReads[bytes, HeldKey] = JoinedReads(self._reader, idempotency_keys.held_keys)
        self.metrics = StoreMetrics(self._reader, self._writer, self._creator, (engine, database.reads))
        self.requirements = Requirements(self._reader, self._writer)
        self.deliveries = DeliveryQueue(self._reader, self._writer, statement_limit=self._statement_limit)
        self.limits = HeldLimits(self._reader, self._writer)
        self.approvals = WaitingApprovals(self._reader, self._writer)
        self.reasons = WaitingReasons(self.requirements, self.limits, self.approvals)
        self.is_audited = False
        self._capabilities: Mapping[str, Capabilities] = {}

    @classmethod
    async def open(cls, url: str, options: DatabaseOptions = _DEFAULTS) -> Store:
        """Opens a database. An SQLite file is created, or brought up to date.

        Args:
            url: `sqlite:///PATH`, `mysql://USER:PASSWORD@HOST/DATABASE` or
                `postgresql://USER:PASSWORD@HOST/DATABASE`.
            options: How to connect.

        Raises:
            InvalidArgumentError: The URL is invalid or names an unsupported database.
            FailedPreconditionError: The schema is older or newer than this program's, or another server uses
                the SQLite file.
            UnavailableError: The database cannot be opened.
        """
        return cls(await open_database(url, options), options)

    async def close(self) -> None:
        """Finishes the waiting writes, then closes all connections."""
        await self._creator.close()
        await self._writer.close()
        await self._reader.close()
        self._engine.dispose()
        if self._lock is not None:
            self._lock.release()

    @property
    def database_kind(self) -> str:
        """The database: "sqlite", "mariadb", "mysql" or "postgresql"."""
        dialect = self._engine.dialect
        return "mariadb" if getattr(dialect, "is_mariadb", False) else dialect.name

    @property
    def commits(self) -> int:
        """The number of transactions committed so far."""
        return sum(writer.batches.commits for writer in {self._writer, self._creator})

    async def create_request(
        self,
        request: Request,
        create_request: request_manager_pb2.CreateRequest,
        job_chain: JobChain,
        runner: RunnerInfo | None,
        key: IdempotencyKey | None = None,
        *,
        event: EventRow | None = None,
        requirement: Requirement | None = None,
        chain_json: Callable[[], bytes] | None = None,
        work: float | None = None,
        may_wait: bool = True,
    ) -> Created:
        """Stores a new request, and assigns it to a runner if one is given.

        Args:
            request: The request, PENDING.
            create_request: The message that asked for it.
            job_chain: The chain as created.
            runner: The runner to assign it to; None if the request waits.
            key: Its idempotency key, if it has one.
            event: The row of its audit event, which is stored in the same transaction.
            requirement: What it needs of a runner; None to derive that from the chain when it waits.
            chain_json: Returns the JSON of the chain; None to encode it.
            work: How long it takes to encode, see `work_of`; None to find out.
            may_wait: Whether it may wait for the keys of its limits, if it has some.

        Returns:
            Its assignment, and whether it waits for a limit.

        Raises:
            CreatedBeforeError: The key has created the same request before. Nothing is stored.
            ConflictError: The key was used for a different request. Nothing is stored.
            FailedPreconditionError: The request is a retry, and another one has not ended (RETRY_NOT_ENDED),
                or a limit with the policy `refuse` is reached (LIMIT_REACHED). Nothing is stored.
            ResourceExhaustedError: Too many requests wait for a limit (TOO_MANY_AT_LIMIT), or it must not
                wait for one (TOO_MANY_BLOCKED). Nothing is stored.
        """
        if requirement is not None:
            await self.requirements.save(requirement)
        if job_chain.limits:
            await self.requirements.save(WAITS_FOR_LIMIT)
        make = partial(
            creation_of,
            request,
            create_request,
            job_chain,
            runner,
            key,
            now=_now(),
            chain_json=chain_json,
            event=event,
            requirement_id="" if requirement is None else requirement.requirement_id,
            may_wait=may_wait,
            has_finally=requirement is not None and FINALLY in requirement.features,
        )
        if work is None:
            work = work_of(create_request.ByteSize(), len(job_chain.jobs), job_chain.ByteSize())
        creation = await run_large(make) if work > LARGE else make()
        waits = await self._creator.write(CreateRetry(creation) if request.retry_of else creation)
        if runner is None or job_chain.limits:
            return Created(None, waits_for_limit=bool(waits))
        return Created(Assignment(request_id=request.id, epoch=1))

    async def retry_source(self, request_id: str) -> retries.RetrySource:
        """Returns what a retry of a request is made from.

        Raises:
            NotFoundError: The request does not exist.
        """
        return await self._reader.read(retries.get_retry_source, request_id)

    async def request_of_key(self, key: IdempotencyKey) -> str | None:
        """Returns the id of the request that was created with a key; None if the key is unused.

        Raises:
            ConflictError: The key was used for a different request.
        """
        held = await self._keys.get(key.key_hash)
        return None if held is None else held.request_of(key)

    async def forget_keys(self, limit: int) -> int:
        """Deletes up to `limit` expired idempotency keys. Returns how many it found."""
        expired = await self._reader.read(idempotency_keys.expired_keys, limit)
        if expired:
            await self._writer.write(ForgetKeys(expired))
        return len(expired)

    async def get_request(self, request_id: str, *, with_job_chain: bool) -> Request:
        """Returns a request with its args, and with its job chain if asked.

        Raises:
            NotFoundError: It does not exist.
        """
        found = await self._requests.get(request_id, with_job_chain=with_job_chain)
        await self.reasons.add_to([found])
        return found

    async def get_job_chain(self, request_id: str) -> JobChain:
        """Returns the chain as created.

        Raises:
            NotFoundError: The request does not exist.
        """
        return await self._reader.read(lookups.get_job_chain, request_id)

    async def find_requests(
        self,
        wanted: RequestFilter,
        *,
        only_types: Collection[str] | None = None,
        hidden_types: Collection[str] = (),
    ) -> list[Request]:
        """Returns the requests that match a filter, newest first, without args and chains.

        If the call is cancelled, the find ends before its next block of rows.

        Args:
            wanted: The filter.
            only_types: The types of requests to find; None for all.
            hidden_types: The types of requests not to find.

        Raises:
            InvalidArgumentError: The filter is invalid.
            DeadlineExceededError: A statement took too long. Reason: FIND_TOO_SLOW.
        """
        with _given_up() as is_given_up:
            found = await self._reader.read(
                finding.find_requests,
                wanted,
                only_types=only_types,
                hidden_types=hidden_types,
                statement_limit=self._statement_limit,
                is_given_up=is_given_up,
            )
        await self.reasons.add_to_list(found)
        return found

    async def find_page(
        self,
        wanted: RequestFilter,
        behind: FoundPosition | None,
        page_size: int,
        *,
        only_types: Collection[str] | None = None,
        hidden_types: Collection[str] = (),
    ) -> RequestPage:
        """Returns a page of the requests that match a filter, as `find_requests` returns them.

        Args:
            wanted: The filter.
            behind: The last request of the page before; None for the first page.
            page_size: The maximum number of requests; 0 for no maximum.
            only_types: See `find_requests`.
            hidden_types: See `find_requests`.

        Raises:
            InvalidArgumentError: The filter is invalid.
            DeadlineExceededError: A statement took too long. Reason: FIND_TOO_SLOW.
        """
        with _given_up() as is_given_up:
            page = await self._reader.read(
                found_pages.find_page,
                wanted,
                behind,
                page_size,
                only_types=only_types,
                hidden_types=hidden_types,
                statement_limit=self._statement_limit,
                is_given_up=is_given_up,
            )
        await self.reasons.add_to_list(page.requests)
        return page

    async def count_requests(
        self,
        wanted: RequestFilter,
        *,
        only_types: Collection[str] | None = None,
        hidden_types: Collection[str] = (),
    ) -> dict[int, Count]:
        """Counts the requests that match a filter, by state, up to a limit.

        The arguments and the errors are those of `find_requests`.
        """
        with _given_up() as is_given_up:
            return await self._reader.read(
                count_requests,
                wanted,
                only_types=only_types,
                hidden_types=hidden_types,
                statement_limit=self._statement_limit,
                is_given_up=is_given_up,
            )

    async def count_running(
        self, *, only_types: Collection[str] | None = None, hidden_types: Collection[str] = ()
    ) -> RunningCounts:
        """Counts the RUNNING requests of each runner, up to a limit.

        Args:
            only_types: The types of requests to count; None for all.
            hidden_types: The types of requests not to count.
        """
        return await self._reader.read(count_running, only_types=only_types, hidden_types=hidden_types)

    async def requests_by_id(self, request_ids: Collection[str]) -> dict[str, Request]:
        """Returns the requests with the given ids that exist, by id, without args and chains."""
        if not request_ids:
            return {}
        found = await self._reader.read(lookups.requests_by_id, request_ids)
        await self.reasons.add_to(found.values())
        return found

    async def ids_beginning_with(self, beginning: str, limit: int) -> list[tuple[str, str]]:
        """Returns ids and types of requests whose ids begin with a text, sorted by id."""
        return await self._reader.read(lookups.ids_beginning_with, beginning, limit)

    async def read_changes(
        self,
        earlier: Position | None,
        request_ids: Collection[str] | None,
        arg_names: Collection[str] = (),
    ) -> changes.Changes:
        """Returns what has changed since a position.

        Args:
            earlier: The position; None to read only the position now.
            request_ids: The requests to read; None for all. If there are many, more are read.
            arg_names: The names of the args to read too.
        """
        found = await self._reader.read(changes.read_changes, earlier, request_ids, arg_names)
        await self.reasons.add_to([*found.requests.values(), *found.others.values()])
        return found

    async def tries_after(
        self,
        request_ids: Sequence[str],
        spans: Sequence[Span] | None,
        last: changes.TryKey | None,
        limit: int,
    ) -> list[changes.Try]:
        """Returns finished tries of some requests, in order.

        Args:
            request_ids: The requests, at most `chunks.IDS_AT_ONCE`.
            spans: The stamps of the tries; None for all.
            last: Only tries that come after this one; None for all.
            limit: The maximum number of tries.
        """
        if len(request_ids) == 1 and spans is None and last is None:
            few = await self._requests.few_tries(request_ids[0])
            if few is not None:
                return few[:limit]
        return await self._reader.read(changes.tries_after, request_ids, spans, last, limit)

    async def stamped_requests(self, request_ids: Collection[str]) -> dict[str, changes.StampedRequest]:
        """Returns the requests with the given ids that exist, by id, each with the stamp of its change."""
        if len(request_ids) == 1:
            (request_id,) = request_ids
            one = await self._requests.stamped(request_id)
            found = {} if one is None else {request_id: one}
        else:
            found = await self._reader.read(changes.stamped_requests, request_ids)
        await self.reasons.add_to(one.request for one in found.values())
        return found

    async def changed_ids(self, earlier: Position, limit: int) -> list[str] | None:
        """Returns the ids of the requests that have changed since a position, sorted.

        Returns:
            The ids; None if there are more than `limit`, or if the database took too long to find them.
        """
        return await self._reader.read(
            changes.changed_ids, earlier, limit, statement_limit=self._statement_limit
        )

    async def deleted_in(self, spans: Sequence[Span], after: str, limit: int) -> list[changes.DeletedRequest]:
        """Returns up to `limit` requests that were deleted by transactions with some stamps, sorted by id.

        Args:
            spans: The stamps.
            after: Only requests with larger ids.
            limit: The maximum number of requests.
        """
        return await self._reader.read(changes.deleted_in, spans, after, limit)

    async def args_of(
        self, request_ids: Collection[str], names: Collection[str]
    ) -> dict[str, dict[str, str]]:
        """Returns the text of some args of requests, by request and name, as finds compare them."""
        return await self._reader.read(changes.args_of, request_ids, names)

    def on_ended(self, ended: Callable[[EndedRequest], None]) -> None:
        """Sets a function that is called for each request of a trace, when its end is committed."""

        def take(events: Iterable[object]) -> None:
            for event in events:
                if isinstance(event, RequestEnded) and event.traced is not None:
                    ended(event.traced)

        self._also_take(take)

    def notify(self, subscriptions: Subscriptions, added: Callable[[Iterable[str]], None]) -> None:
        """Stores a delivery for each target that wants what a transaction does, in the same transaction.

        Args:
            subscriptions: Says which targets want an event.
            added: Called after each commit with deliveries, with the names of their targets.
        """

        def take(events: Iterable[object]) -> None:
            for _, targets in wanted_occurrences(events, subscriptions):
                added(targets)

        self._also_take(take)
        for writer in {self._writer, self._creator}:
            writer.batches.before_commit = adder_of(subscriptions)

    def on_limits(self, changed: Callable[[LimitsChanged], None]) -> None:
        """Sets a function that is called after each commit that changed who holds keys of limits."""

        def take(events: Iterable[object]) -> None:
            for event in events:
                if isinstance(event, LimitsChanged):
                    changed(event)

        self._also_take(take)

    def _also_take(self, take: _OnEvents) -> None:
        """Calls a function with the events of each commit, after those that take them already."""

        def take_in_turn(earlier: _OnEvents, events: Iterable[object]) -> None:
            earlier(events)
            take(events)

        for writer in {self._writer, self._creator}:
            writer.on_events = partial(take_in_turn, writer.on_events)

    def on_changed(self, changed: Callable[[Iterable[str]], None]) -> None:
        """Sets a function that is called with the ids of requests after each commit that changed them."""
        for writer in {self._writer, self._creator}:
            writer.on_changed = changed

    async def get_log(self, request_id: str, wanted: LogFilter = ALL) -> list[JobLog]:
        """Returns the job log of a request, or the wanted entries of it.

        Raises:
            NotFoundError: The request does not exist.
        """
        return await self._reader.read(job_logs.get_log, request_id, wanted)

    async def get_log_page(
        self,
        request_id: str,
        behind: LogPosition | None,
        page_size: int,
        max_output: int | None,
        wanted: LogFilter = ALL,
    ) -> LogPage:
        """Returns a page of the job log of a request.

        Args:
            request_id: The request.
            behind: The last entry of the page before; None for the first page.
            page_size: The maximum number of entries; 0 for no maximum.
            max_output: The maximum size of an entry's output in bytes; None for no maximum.
            wanted: Which entries, and in which order.

        Raises:
            NotFoundError: The request does not exist.
        """
        read = partial(log_pages.get_log_page, wanted=wanted)
        return await self._reader.read(read, request_id, behind, page_size, max_output)

    async def get_job_log(self, request_id: str, job_id: str) -> JobLog:
        """Returns the newest entry of a job.

        Raises:
            NotFoundError: It does not exist.
        """
        return await self._reader.read(job_logs.get_job_log, request_id, job_id)

    async def place_of_try(self, request_id: str, job_id: str, number: int) -> outputs.TryPlace:
        """Returns where the output of a try is. Number 0 stands for the newest try.

        Raises:
            NotFoundError: The request does not exist.
        """
        return await self._reader.read(outputs.place_of_try, request_id, job_id, number)

    async def check_job(self, request_id: str, job_id: str) -> None:
        """Checks that the chain of a request has a job.

        Raises:
            NotFoundError: It has no such job. Reason: JOB_NOT_FOUND.
        """
        await self._reader.read(outputs.check_job, request_id, job_id)

    async def stored_piece(
        self, key: outputs.TryKey, stream: OutputStream.ValueType, position: int, size: int
    ) -> bytes:
        """Returns up to `size` bytes of what the job log has of a stream, from a position in bytes.

        Raises:
            NotFoundError: The entry was pruned.
        """
        return await self._reader.read(outputs.stored_piece, key, stream, position, size)

    async def get_assignment(self, request_id: str) -> tuple[Assignment, str] | None:
        """Returns the assignment of a RUNNING request and the id of its runner; None without an assignment.

        The id is "" if the request waits to be taken over.
        """
        return await self._reader.read(lookups.get_assignment, request_id)

    async def get_suspended(self, request_id: str) -> SuspendedJobChain | None:
        """Returns the suspended chain of a request; None if it has none, or an outdated one."""
        return await self._reader.read(suspended_chains.get_suspended, request_id)

    async def live_runners(self) -> list[LiveRunner]:
        """Returns the runners with a current lease."""
        live = await self._reader.read(leases.live_runners, self._capabilities)
        self._capabilities = {one.capabilities.capabilities_id: one.capabilities for one in live}
        return live

    async def runners_like(self, runner: RunnerInfo) -> list[StoredRunner]:
        """Returns the runners that are stored with the id or the address of a runner."""
        return await self._reader.read(leases.runners_like, runner)

    async def get_record(self, request_id: str) -> Record:
        """Returns the record from which the chain of a request is rebuilt.

        Raises:
            NotFoundError: The request does not exist.
        """
        return await self._reader.read(record.get_record, request_id)

    async def lost_requests(self, limit: int, without: Collection[str] = ()) -> Sequence[LostRequest]:
        """Returns the RUNNING requests whose runner has no current lease, oldest first.

        Args:
            limit: The maximum number of requests.
            without: The ids of requirements whose requests are left out.
        """
        return await self._reader.read(leases.lost_requests, limit, without)

    async def assigned_to(self, runner_id: str) -> dict[str, lookups.Assigned]:
        """Returns the RUNNING requests that are assigned to a runner, by request id."""
        return await self._reader.read(lookups.assigned_to, runner_id)

    async def request_stop(
        self, request_id: str, event: EventRow | None = None, *, is_repeated: bool = False
    ) -> StopOutcome:
        """Asks a RUNNING request to stop. The audit event is stored if nobody asked before.

        A second stop skips the `finally` parts, unless `is_repeated`: then the same call has asked before.

        Raises:
            NotFoundError: The request does not exist.
        """
        outcome: StopOutcome = await self._writer.write(RequestStop(request_id, _now(), event, is_repeated))
        return outcome

    async def begin_pause(
        self, request_id: str, user: str, *, stops_jobs: bool, event: EventRow | None = None
    ) -> PauseOutcome:
        """Pauses a request. The audit event is stored if this changes anything.

        Raises:
            NotFoundError: The request does not exist.
            FailedPreconditionError: It has ended or is being stopped (WRONG_STATE), or a runner of an
                original runs it (CANNOT_PAUSE).
        """
        outcome: PauseOutcome = await self._writer.write(
            BeginPause(request_id, user, stops_jobs, _now(), event)
        )
        return outcome

    async def end_pause(self, request_id: str, event: EventRow | None = None) -> PauseOutcome:
        """Ends the pause of a request.

        Raises:
            NotFoundError: The request does not exist.
            FailedPreconditionError: It is not paused. Reason: WRONG_STATE.
        """
        outcome: PauseOutcome = await self._writer.write(EndPause(request_id, event))
        return outcome

    async def pause_of(self, request_id: str) -> HeldPause | None:
        """Returns whether a RUNNING request is paused; None if it is in another state."""
        return await self._reader.read(pause_of, request_id)

    async def run_by_originals(self, limit: int) -> dict[str, str]:
        """Returns the URLs of the runners of RUNNING requests that originals run, by request id."""
        return await self._reader.read(lookups.run_by_originals, limit)

    async def end_lost_original(self, request_id: str) -> None:
        """Stops a RUNNING request that an original ran, because its runner is gone.

        Raises:
            NotFoundError: The request does not exist.
        """
        await self._writer.write(EndLostOriginal(request_id, _now()))

    async def remove_runner(self, runner_id: str) -> None:
        """Ends the lease of a runner."""
        await self._writer.write(RemoveRunner(runner_id))

    async def assign(
        self,
        request_id: str,
        runner: RunnerInfo,
        *,
        expected_state: State,
        expected_epoch: int | None = None,
        token: int | None = None,
        event: EventRow | None = None,
    ) -> Assignment | None:
        """Assigns a request to a runner if the request is in the expected state, and increments its epoch.

        If `expected_epoch` is given, the request must still have that assignment. A RUNNING request is taken
        over if its runner's lease has expired, or if `token` is the newest renewal of that lease. The
        audit event is stored if the request was assigned.

        Returns:
            The assignment, or None if the request is not as expected.

        Raises:
            NotFoundError: The request does not exist.
        """
        assignment: Assignment | None = await self._writer.write(
            Assign(request_id, runner, expected_state, expected_epoch, _now(), token, event)
        )
        return assignment

    async def release(self, request_id: str, event: EventRow | None = None) -> bool:
        """Lets a PENDING request wait for a runner, although an original created it and did not start it.

        Returns:
            Whether it did not wait before. Then the audit event is stored.

        Raises:
            NotFoundError: The request does not exist.
        """
        released: bool = await self._writer.write(Release(request_id, event))
        return released

    async def unassign(self, assignment: Assignment, state_before: State) -> bool:
        """Takes back an assignment that its runner did not start. Returns whether it was current."""
        undone: bool = await self._writer.write(
            Unassign(assignment.request_id, assignment.epoch, state_before)
        )
        return undone

    async def end_assignment(
        self,
        assignment: Assignment,
        state: State,
        finished_jobs: int | None = None,
        finished_tasks: int | None = None,
    ) -> None:
        """Ends a request that its runner cannot run, or that has no jobs left to run.

        Raises:
            FailedPreconditionError: The assignment is no longer current.
        """
        await self._writer.write(
            Finish(
                assignment.request_id, state, _now(), finished_jobs, finished_tasks, epoch=assignment.epoch
            )
        )

    async def stop_unassigned(
        self, request_id: str, event: EventRow | None = None, *, is_repeated: bool = False
    ) -> UnassignedStop:
        """Stops a request if it is PENDING or SUSPENDED, and stores the event if it was.

        Args:
            request_id: The request.
            event: The audit event of the call.
            is_repeated: Whether the same call has asked a runner to stop it before.
        """
        stopped: UnassignedStop = await self._writer.write(
            StopUnassigned(request_id, _now(), event, is_repeated)
        )
        return stopped

    async def finish(self, request_id: str, state: State, finished_at: int, finished_jobs: int) -> None:
        """Sets the final state of a RUNNING request; the time is in microseconds since the Unix epoch.

        Raises:
            NotFoundError: The request does not exist.
            FailedPreconditionError: It is not RUNNING.
        """
        await self._writer.write(Finish(request_id, state, finished_at, finished_jobs))

    async def suspend(
        self, request_id: str, suspended: SuspendedJobChain, *, epoch: int | None = None
    ) -> None:
        """Stores a suspended chain and sets its RUNNING request SUSPENDED, in one transaction.

        If `epoch` is given, the request must still have that assignment.

        Raises:
            NotFoundError: The request does not exist.
            FailedPreconditionError: It is not RUNNING.
        """
        size = suspended.ByteSize()
        chain = await run_sized(size, encode, suspended)
        _, finished_tasks = await run_sized(size, count_tasks, suspended.job_chain)
        finished_jobs = suspended.job_chain.finished_jobs
        await self._writer.write(Suspend(request_id, chain, finished_jobs, finished_tasks, epoch))

    async def drop_suspended(self, assignment: Assignment) -> None:
        """Drops the suspended chain that an assignment resumed, if the assignment is current."""
        await self._writer.write(DropSuspended(assignment.request_id, assignment.epoch))

    async def fail_unresumed(self, seconds: float, limit: int = 100) -> Sequence[str]:
        """Fails requests that have been suspended for longer than `seconds`. Returns their ids."""
        old = await self._reader.read(suspended_chains.suspended_before, seconds, limit)
        failed = [await self._writer.write(FailSuspended(one.request_id, one.epoch, _now())) for one in old]
        return [one.request_id for one, happened in zip(old, failed, strict=True) if happened]

    async def set_progress(self, request_id: str, finished_jobs: int) -> None:
        """Sets the number of finished jobs.

        Raises:
            NotFoundError: The request does not exist.
        """
        await self._writer.write(Progress(request_id, finished_jobs))

    async def record_log(self, entry: JobLog) -> JobLog:
        """Records a finished try, unless the try has an entry already.

        Returns:
            The recorded entry, which may be the earlier one.

        Raises:
            NotFoundError: The request does not exist.
        """
        await self._writer.write(RecordLog(entry))
        return await self._reader.read(
            job_logs.get_try, entry.request_id, entry.job_id, getattr(entry, "try")
        )

    async def apply_reports(self, runner_id: str, reports: Sequence[ChainReport]) -> list[RefusedReport]:
        """Stores the reports of a runner in one transaction.

        Returns:
            The refused reports with their reasons. The other reports are committed.
        """
        suspended = {
            report.assignment.request_id: await run_sized(
                report.suspended.ByteSize(), suspended_chains.stored_form, report.suspended
            )
            for report in reports
            if report.HasField("suspended")
        }
        refused: list[RefusedReport] = await self._writer.write(
            ApplyReports(runner_id, reports, suspended, self.is_audited)
        )
        return refused

    async def renew_runner(
        self,
        runner: RunnerInfo,
        lease: float,
        *,
        draining: bool,
        token: int | None = None,
        capabilities: Capabilities = KNOWS_ALL,
        has_changed: bool = True,
    ) -> int:
        """Renews the lease of a runner. Returns a token for the next renewal on the same stream.

        Args:
            runner: The runner.
            lease: Seconds until the lease expires, by the database's clock.
            draining: Whether the runner accepts no more chains.
            token: The token of the previous renewal on the same stream; None for the stream's first.
            capabilities: What the runner has.
            has_changed: Whether the capabilities may differ from the stored ones.

        Raises:
            FailedPreconditionError: Another stream has renewed the lease since. Reason: STREAM_SUPERSEDED.
        """
        renewed: int = await self._writer.write(
            RenewRunner(runner, lease, draining, token, capabilities, has_changed)
        )
        return renewed

    async def record_events(self, events: Sequence[AuditEvent]) -> None:
        """Stores audit events that have no effect in the database, such as denials."""
        await self._writer.write(RecordEvents([event_row(event) for event in events]))

    async def list_audit_events(self, wanted: AuditFilter) -> EventPage:
        """Returns a page of the audit events that match a filter, newest first.

        Raises:
            InvalidArgumentError: The filter is invalid.
            DeadlineExceededError: The statement took too long. Reason: FIND_TOO_SLOW.
        """
        return await self._reader.read(
            audit_listing.list_events, wanted, statement_limit=self._statement_limit
        )

    async def look_at_tokens(self, seen: TokensVersion | None) -> TokensLook:
        """Returns the valid API tokens if they have changed. Does not wait for other reads.

        Args:
            seen: The version of an earlier look; None for the first look.
        """
        return await self._reader.read_beside(look_at_tokens, seen)

    async def session_keys(self) -> list[StoredSessionKey]:
        """Returns the keys that seal the sessions of browsers, the newest first."""
        return await self._reader.read(read_session_keys)

    async def add_session_key(self, key_id: bytes, key: bytes) -> None:
        """Stores a key that seals the sessions of browsers, and deletes those that are too old."""
        await self._writer.write(AddSessionKey(key_id, key))

    async def ping(self) -> None:
        """Raises if the database cannot be used now. Does not wait for running reads."""
        await self._reader.ping()


def work_of(size: int, jobs: int, chain_bytes: int) -> float:
    """Returns how long it takes to encode a new request, as bytes of args.

    Args:
        size: The bytes of the message that asked for it.
        jobs: The number of its jobs.
        chain_bytes: The bytes of its job chain.
    """
    return math.inf if jobs > _FEW_JOBS else size + chain_bytes / _CHAIN_BYTES


@contextmanager
def _given_up() -> Iterator[Callable[[], bool]]:
    """Yields a function that returns whether the context has ended, for a read in another thread."""
    given_up = threading.Event()
    try:
        yield given_up.is_set
    finally:
        given_up.set()


def _now() -> int:
    return time.time_ns() // 1000
