"""The calls of a Request Manager, for both clients: the message to send, and how to read the response.

Each function checks its arguments and returns a Call. It sends nothing.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from typing import Any, Generic, TypedDict, TypeVar, Unpack

import orjson
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.retries import MAX_TRIES
from spincycle_grpc.state import State
from spincycle_grpc.structs import from_value, to_struct, to_value
from spincycle_grpc.v1 import request_manager_pb2 as messages
from spincycle_grpc.v1.approval_pb2 import PendingApproval
from spincycle_grpc.v1.audit_pb2 import AuditFilter
from spincycle_grpc.v1.installation_pb2 import Runner, StateCount
from spincycle_grpc.v1.job_log_pb2 import JobLog
from spincycle_grpc.v1.job_pb2 import Job, JobChain
from spincycle_grpc.v1.limit_pb2 import HeldLimit
from spincycle_grpc.v1.notification_pb2 import DeliveryFilter
from spincycle_grpc.v1.request_pb2 import Request, RequestFilter, RequestSpec
from spincycle_grpc.v1.status_pb2 import RunningStatus, StatusFilter

DEFAULT_ADDRESS = "127.0.0.1:32318"
"""The default gRPC address of a Request Manager."""

_SERVICE = messages.DESCRIPTOR.services_by_name["RequestManager"]

_Answer = TypeVar("_Answer")
_Item = TypeVar("_Item")
_Message = TypeVar("_Message", bound=Message)


@dataclass(frozen=True)
class Call(Generic[_Answer]):
    """One call of a Request Manager.

    Attributes:
        method: The name of the method of RequestManager.
        request: The message to send.
        read: Returns the result of the call from the response.
    """

    method: str
    request: Message
    read: Callable[[Any], _Answer]

    @property
    def max_tries(self) -> int:
        """The maximum number of tries. It is above 1 only if a second try cannot have a second effect.

        That is the case if the contract gives the method an idempotency level, or if the request has an
        idempotency key.
        """
        has_key = getattr(self.request, "idempotency_key", "") != ""
        return MAX_TRIES if has_key or _has_idempotency_level(self.method) else 1


@dataclass(frozen=True)
class PagedCall(Generic[_Answer, _Item]):
    """A call whose result comes in pages.

    Attributes:
        first: The call of the first page. Its result is the response.
        items: Returns the items of a page from its response.
        join: Returns the result from the responses of all pages.
    """

    first: Call[Any]
    items: Callable[[Any], Iterable[_Item]]
    join: Callable[[Iterable[Any]], _Answer]

    def next(self, response: Any) -> Call[Any] | None:
        """Returns the call of the page after a response; None if that was the last page."""
        if not response.next_page_token:
            return None
        request: Any = type(self.first.request)()
        request.CopyFrom(self.first.request)
        request.page_token = response.next_page_token
        return replace(self.first, request=request)


@cache
def _has_idempotency_level(method: str) -> bool:
    options = _SERVICE.methods_by_name[method].GetOptions()
    return options.idempotency_level != MethodOptions.IDEMPOTENCY_UNKNOWN


def create(
    request_type: str,
    args: Mapping[str, object] | None,
    idempotency_key: str | None,
    *,
    strict_args: bool = False,
) -> Call[Request]:
    """Returns the call of Create. Without a key it gets a new one, so that the call can be retried."""
    request = _message(
        messages.CreateRequest,
        type=request_type,
        args=to_struct(args or {}, ""),
        idempotency_key=uuid.uuid4().hex if idempotency_key is None else idempotency_key,
        strict_args=strict_args,
    )
    return Call("Create", request, lambda response: response.request)


def plan(
    request_type: str, args: Mapping[str, object] | None, *, strict_args: bool = False
) -> PagedCall[Request, Job]:
    """Returns the call of Plan."""
    request = _message(
        messages.PlanRequest, type=request_type, args=to_struct(args or {}, ""), strict_args=strict_args
    )
    return PagedCall(
        Call("Plan", request, _itself),
        lambda response: response.request.job_chain.jobs.values(),
        _joined_plan,
    )


def _joined_plan(responses: Iterable[messages.PlanResponse]) -> Request:
    first, *others = responses
    for other in others:
        first.request.job_chain.MergeFrom(other.request.job_chain)
    return first.request


class CountFilters(TypedDict, total=False):
    """The filters of a count, as in `Client.find`."""

    type: str
    states: Iterable[int]
    user: str
    since: datetime | None
    until: datetime | None
    args: Mapping[str, object] | None


class Filters(CountFilters, total=False):
    """The filters of a find, as in `Client.find`."""

    limit: int
    offset: int


def find(**filters: Unpack[Filters]) -> PagedCall[list[Request], Request]:
    """Returns the call of Find."""
    return PagedCall(
        Call("Find", messages.FindRequest(filter=_chosen(**filters)), _itself),
        lambda response: response.requests,
        lambda responses: [request for response in responses for request in response.requests],
    )


def _chosen(
    *,
    type: str = "",  # noqa: A002 (the name in the contract)
    states: Iterable[int] = (),
    user: str = "",
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int = 0,
    offset: int = 0,
    args: Mapping[str, object] | None = None,
) -> RequestFilter:
    return request_filter(
        request_type=type,
        states=states,
        user=user,
        since=since,
        until=until,
        limit=limit,
        offset=offset,
        args=args,
    )


def request_filter(
    *,
    request_type: str,
    states: Iterable[int],
    user: str,
    since: datetime | None,
    until: datetime | None,
    limit: int,
    offset: int,
    args: Mapping[str, object] | None,
) -> RequestFilter:
    """Returns the filter of Find and Watch."""
    return _message(
        RequestFilter,
        type=request_type,
        states=[int(state) for state in states],
        user=user,
        since=_timestamp(since),
        until=_timestamp(until),
        limit=limit,
        offset=offset,
        args=[f"{name}={_as_text(name, value)}" for name, value in (args or {}).items()],
    )


def get(request_id: str, *, with_job_chain: bool) -> Call[Request]:
    """Returns the call of Get. A job chain that is too large for it fails with RESPONSE_TOO_LARGE."""
    view = messages.REQUEST_VIEW_FULL if with_job_chain else messages.REQUEST_VIEW_BASIC
    request = _message(messages.GetRequest, request_id=request_id, view=view)
    return Call("Get", request, lambda response: response.request)


def start(request_id: str) -> Call[None]:
    """Returns the call of Start."""
    return Call("Start", _message(messages.StartRequest, request_id=request_id), _nothing)


def retry(request_id: str, from_job: str, idempotency_key: str | None) -> Call[Request]:
    """Returns the call of Retry. Without a key it gets a new one, so that the call can be repeated."""
    request = _message(
        messages.RetryRequest,
        request_id=request_id,
        from_job=from_job,
        idempotency_key=uuid.uuid4().hex if idempotency_key is None else idempotency_key,
    )
    return Call("Retry", request, lambda response: response.request)


def stop(request_id: str) -> Call[None]:
    """Returns the call of Stop."""
    return Call("Stop", _message(messages.StopRequest, request_id=request_id), _nothing)


def pause(request_id: str, now: bool) -> Call[None]:
    """Returns the call of Pause."""
    return Call("Pause", _message(messages.PauseRequest, request_id=request_id, now=now), _nothing)


def resume(request_id: str) -> Call[None]:
    """Returns the call of Resume."""
    return Call("Resume", _message(messages.ResumeRequest, request_id=request_id), _nothing)


def approve(request_id: str, job_id: str, comment: str, number: int) -> Call[PendingApproval]:
    """Returns the call of Approve."""
    request = _message(
        messages.ApproveRequest, request_id=request_id, job_id=job_id, comment=comment, **{"try": number}
    )
    return Call("Approve", request, lambda response: response.approval)


def reject(request_id: str, job_id: str, comment: str, number: int) -> Call[PendingApproval]:
    """Returns the call of Reject."""
    request = _message(
        messages.RejectRequest, request_id=request_id, job_id=job_id, comment=comment, **{"try": number}
    )
    return Call("Reject", request, lambda response: response.approval)


def list_approvals(only_mine: bool) -> Call[messages.ListApprovalsResponse]:
    """Returns the call of ListApprovals."""
    return Call("ListApprovals", _message(messages.ListApprovalsRequest, only_mine=only_mine), _itself)


def job_chain(request_id: str) -> PagedCall[JobChain, Job]:
    """Returns the call of GetJobChain."""
    request = _message(messages.GetJobChainRequest, request_id=request_id)
    return PagedCall(
        Call("GetJobChain", request, _itself),
        lambda response: response.job_chain.jobs.values(),
        _joined_job_chain,
    )


def _joined_job_chain(responses: Iterable[messages.GetJobChainResponse]) -> JobChain:
    first, *others = responses
    for other in others:
        first.job_chain.MergeFrom(other.job_chain)
    return first.job_chain


class LogFilters(TypedDict, total=False):
    """Which tries of a request to read, as in `Client.log`."""

    states: Iterable[int]
    job_id: str
    latest_tries: bool
    omit_noops: bool
    newest_first: bool
    page_size: int


def log(request_id: str, **filters: Unpack[LogFilters]) -> PagedCall[list[JobLog], JobLog]:
    """Returns the call of GetLog."""
    request = _message(messages.GetLogRequest, request_id=request_id, **filters)
    return PagedCall(
        Call("GetLog", request, _itself),
        lambda response: response.entries,
        lambda responses: [entry for response in responses for entry in response.entries],
    )


def job_log(request_id: str, job_id: str) -> Call[JobLog]:
    """Returns the call of GetJobLog."""
    request = _message(messages.GetJobLogRequest, request_id=request_id, job_id=job_id)
    return Call("GetJobLog", request, lambda response: response.entry)


def request_list() -> Call[list[RequestSpec]]:
    """Returns the call of RequestList."""
    return Call("RequestList", messages.RequestListRequest(), lambda response: list(response.specs))


def running(request_id: str) -> Call[RunningStatus]:
    """Returns the call of Running. An empty id stands for all requests."""
    chosen = _message(StatusFilter, request_id=request_id)
    return Call("Running", messages.RunningRequest(filter=chosen), lambda response: response.status)


def watch(request_id: str, chosen: RequestFilter | None, cursor: str) -> messages.WatchRequest:
    """Returns the request of Watch."""
    return _message(messages.WatchRequest, request_id=request_id, filter=chosen, cursor=cursor)


def follow_output(
    request_id: str,
    job_id: str,
    *,
    try_number: int,
    stdout_offset: int,
    stderr_offset: int,
    cursor: str,
) -> messages.FollowOutputRequest:
    """Returns the request of FollowOutput."""
    return _message(
        messages.FollowOutputRequest,
        request_id=request_id,
        job_id=job_id,
        stdout_offset=stdout_offset,
        stderr_offset=stderr_offset,
        cursor=cursor,
        **{"try": try_number},
    )


def list_audit_events(
    *,
    request_id: str,
    user: str,
    operation: str,
    outcome: str,
    since: datetime | None,
    until: datetime | None,
    limit: int,
    page_token: str,
) -> Call[messages.ListAuditEventsResponse]:
    """Returns the call of ListAuditEvents."""
    chosen = _message(
        AuditFilter,
        request_id=request_id,
        user=user,
        operation=operation,
        outcome=outcome,
        since=_timestamp(since),
        until=_timestamp(until),
        limit=limit,
        page_token=page_token,
    )
    return Call("ListAuditEvents", messages.ListAuditEventsRequest(filter=chosen), _itself)


def count_requests(**filters: Unpack[CountFilters]) -> Call[dict[State, StateCount]]:
    """Returns the call of CountRequests."""
    return Call("CountRequests", messages.CountRequestsRequest(filter=_chosen(**filters)), _by_state)


def _by_state(response: messages.CountRequestsResponse) -> dict[State, StateCount]:
    return {State(found.state): found for found in response.counts}


def list_runners() -> PagedCall[list[Runner], Runner]:
    """Returns the call of ListRunners."""
    return PagedCall(
        Call("ListRunners", messages.ListRunnersRequest(), _itself),
        lambda response: response.runners,
        lambda responses: [runner for response in responses for runner in response.runners],
    )


def list_limits(key: str, request_id: str) -> PagedCall[list[HeldLimit], HeldLimit]:
    """Returns the call of ListLimits."""
    return PagedCall(
        Call("ListLimits", _message(messages.ListLimitsRequest, key=key, request_id=request_id), _itself),
        lambda response: response.limits,
        lambda responses: [limit for response in responses for limit in response.limits],
    )


def get_configuration() -> Call[messages.GetConfigurationResponse]:
    """Returns the call of GetConfiguration."""
    return Call("GetConfiguration", messages.GetConfigurationRequest(), _itself)


def list_deliveries(
    *, request_id: str, target: str, event_id: str, state: int, limit: int, page_token: str
) -> Call[messages.ListDeliveriesResponse]:
    """Returns the call of ListDeliveries."""
    chosen = _message(
        DeliveryFilter,
        request_id=request_id,
        target=target,
        event_id=event_id,
        state=state,
        limit=limit,
        page_token=page_token,
    )
    return Call("ListDeliveries", messages.ListDeliveriesRequest(filter=chosen), _itself)


def redeliver(event_id: str, target: str) -> Call[None]:
    """Returns the call of Redeliver."""
    return Call("Redeliver", _message(messages.RedeliverRequest, event_id=event_id, target=target), _nothing)


def send_test_notification(target: str) -> Call[str]:
    """Returns the call of SendTestNotification."""
    request = _message(messages.SendTestNotificationRequest, target=target)
    return Call("SendTestNotification", request, lambda response: str(response.event_id))


def get_caller() -> Call[messages.GetCallerResponse]:
    """Returns the call of GetCaller."""
    return Call("GetCaller", messages.GetCallerRequest(), _itself)


def version() -> Call[str]:
    """Returns the call of Version."""
    return Call("Version", messages.RequestManagerVersionRequest(), lambda response: str(response.version))


def _itself(response: Any) -> Any:
    return response


def _nothing(response: object) -> None:
    return None


def _message(message_type: Callable[..., _Message], **fields: object) -> _Message:
    """Builds a message.

    Raises:
        InvalidArgumentError: A text is not Unicode, or a number is out of range. Reason: WRONG_TYPE.
    """
    try:
        return message_type(**fields)
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(f"{error.object!r} is not Unicode text", reason="WRONG_TYPE") from error
    except ValueError as error:
        raise InvalidArgumentError(f"cannot send a value: {error}", reason="WRONG_TYPE") from error


def _timestamp(time: datetime | None) -> Timestamp | None:
    """Converts a time. A time without a time zone is local time, as in `datetime.astimezone`."""
    if time is None:
        return None
    try:
        timestamp = Timestamp()
        timestamp.FromDatetime(time.astimezone())
    except (ValueError, OverflowError, OSError) as error:
        raise InvalidArgumentError(
            f"{time} is out of range: a time must be in the years 1 to 9999", reason="WRONG_TYPE"
        ) from error
    return timestamp


def _as_text(name: str, value: object) -> str:
    """Returns the text with which the server compares the value of an arg."""
    if isinstance(value, str):
        return value
    return orjson.dumps(from_value(to_value(value, name))).decode()
