"""A Request Manager for tests of its clients. Its answers are set in advance, and it records its calls."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import grpc
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from spincycle_grpc.errors import NotFoundError, SpinCycleError, UnavailableError
from spincycle_grpc.state import State
from spincycle_grpc.structs import to_value
from spincycle_grpc.v1 import request_manager_pb2 as messages
from spincycle_grpc.v1 import request_pb2
from spincycle_grpc.v1.approval_pb2 import Approval, PendingApproval
from spincycle_grpc.v1.audit_pb2 import AuditEvent
from spincycle_grpc.v1.installation_pb2 import (
    ConfigurationOption,
    HealthCheck,
    Runner,
    StateCount,
    TypePermissions,
)
from spincycle_grpc.v1.job_log_pb2 import JobLog
from spincycle_grpc.v1.job_pb2 import Job, JobChain, JobIds
from spincycle_grpc.v1.limit_pb2 import HeldLimit
from spincycle_grpc.v1.notification_pb2 import (
    DELIVERY_STATE_DELIVERED,
    DELIVERY_STATE_WAITING,
    Delivery,
)
from spincycle_grpc.v1.request_manager_pb2_grpc import (
    RequestManagerServicer,
    add_RequestManagerServicer_to_server,
)
from spincycle_grpc.v1.request_pb2 import Request, RequestArg, RequestSpec
from spincycle_grpc.v1.state_pb2 import STATE_COMPLETE, STATE_PENDING
from spincycle_grpc.v1.status_pb2 import JobStatus, RunningStatus
from spincycle_server.rpc.status import status_of
from tests.limits import STEP

REQUEST_ID = "9vb2d3q0c7k5r1n8m4tg"
RETRY_ID = "9vb2d3q0c7k5r1n8m4u0"
JOB_ID = "aB3x"


class Asked(NamedTuple):
    """One call: its method, its request, and the seconds to its deadline."""

    method: str
    request: Any
    time_remaining: float


def chain() -> JobChain:
    """Returns a chain of two jobs."""
    jobs = {
        "aaaa": Job(id="aaaa", name="noop", type="noop", state=STATE_PENDING, sequence_id="aaaa"),
        "bbbb": Job(id="bbbb", name="nap", type="sleep", state=STATE_PENDING, sequence_id="aaaa"),
    }
    return JobChain(jobs=jobs, adjacency_list={"aaaa": JobIds(ids=["bbbb"])}, state=STATE_PENDING)


def stage(state: Any, finished: int = 0, total: int = 5) -> Request:
    """Returns the request in a state."""
    request = Request(id=REQUEST_ID, type="nap", state=state, total_jobs=total, finished_jobs=finished)
    request.created_at.CopyFrom(Timestamp(seconds=1_800_000_000))
    if state is not State.PENDING:
        request.started_at.CopyFrom(Timestamp(seconds=1_800_000_001))
    if state in (State.COMPLETE, State.FAIL, State.STOPPED):
        request.finished_at.CopyFrom(Timestamp(seconds=1_800_000_002, nanos=500_000_000))
    return request


def entry(number: int = 1, **fields: Any) -> JobLog:
    """Returns the job log entry of a failed try."""
    log_entry = JobLog(
        **{
            "request_id": REQUEST_ID,
            "job_id": JOB_ID,
            "name": "nap",
            "type": "sleep",
            "state": State.FAIL,
            "started_at": 1_800_000_001_000_000_000,
            "finished_at": 1_800_000_001_035_000_000,
            "exit": 7,
            **fields,
        }
    )
    setattr(log_entry, "try", number)
    return log_entry


def event(**fields: Any) -> AuditEvent:
    """Returns the audit event of the request's creation."""
    made = AuditEvent(
        **{
            "id": "0123456789abcdef0123",
            "user": "finch",
            "auth_method": "token",
            "peer": "10.0.0.9",
            "transport": "grpc",
            "operation": "RequestManager.Create",
            "request_id": REQUEST_ID,
            "request_type": "nap",
            "outcome": "OK",
            "count": 1,
            **fields,
        }
    )
    if not made.HasField("occurred_at"):
        made.occurred_at.FromSeconds(1_800_000_000)
    return made


def held_limit(key: str, most: int = 1) -> HeldLimit:
    """Returns a key that one request holds and another one waits for."""
    made = HeldLimit(key=key, max=most, holding=1, waiting=1)
    for request_id, holds in ((REQUEST_ID, True), (RETRY_ID, False)):
        claim = made.claims.add(
            request_id=request_id, request_type="nap", user="finch", state=STATE_PENDING, holds=holds
        )
        claim.since.FromSeconds(1_800_000_000)
    return made


def running_job(number: int = 1, **fields: Any) -> JobStatus:
    """Returns the status of a running job."""
    job = JobStatus(
        **{
            "request_id": REQUEST_ID,
            "job_id": JOB_ID,
            "name": "nap",
            "type": "sleep",
            "started_at": 1_800_000_001_000_000_000,
            "state": State.RUNNING,
            "status": "sleeping",
            **fields,
        }
    )
    setattr(job, "try", number)
    return job


def spec() -> RequestSpec:
    """Returns the spec of a request with a required and two optional args."""
    return RequestSpec(
        name="nap",
        args=[
            RequestArg(name="ms", desc="How long", type=request_pb2.ARG_TYPE_REQUIRED, given=True),
            RequestArg(
                name="host",
                desc="Where",
                type=request_pb2.ARG_TYPE_OPTIONAL,
                default=to_value("localhost", "default"),
            ),
            RequestArg(name="tags", type=request_pb2.ARG_TYPE_OPTIONAL, default=to_value([1, 2], "default")),
        ],
    )


def _check_id(request_id: str, context: Any) -> None:
    if not REQUEST_ID.startswith(request_id):
        _abort(
            context,
            NotFoundError(
                f"request {request_id} not found", reason="REQUEST_NOT_FOUND", request_id=request_id
            ),
        )


def _chosen(request: messages.GetLogRequest, log: list[JobLog]) -> list[JobLog]:
    """Returns the first page of the entries that a request asks for."""
    newest = {entry.job_id: entry for entry in sorted(log, key=lambda entry: int(getattr(entry, "try")))}
    chosen = [
        entry
        for entry in log
        if (not request.job_id or entry.job_id == request.job_id)
        and (not request.states or entry.state in request.states)
        and (not request.latest_tries or newest[entry.job_id] is entry)
        and not (request.omit_noops and entry.name == entry.type == "noop")
    ]
    if request.newest_first:
        chosen.sort(key=lambda entry: entry.finished_at, reverse=True)
    return chosen[: request.page_size or None]


def _abort(context: Any, error: SpinCycleError) -> None:
    """Ends a call as the servers do. Not every gRPC context accepts a whole status."""
    status: Any = status_of(error)
    context.set_trailing_metadata(status.trailing_metadata)
    context.abort(status.code, status.details)


def approval() -> PendingApproval:
    """Returns an approval that a request waits for."""
    one = PendingApproval(
        request_id=REQUEST_ID,
        request_type="stop-host",
        requester="finch",
        job_id="appr",
        path=["stop-host", "permit"],
        approval=Approval(roles=["dba", "lead"], approvals=2, message="Stop host web1?", timeout="24h"),
        may_decide=True,
        **{"try": 1},  # type: ignore[arg-type]
    )
    one.opened_at.FromSeconds(1_750_000_000)
    one.deadline.FromSeconds(1_750_086_400)
    return one


class FakeManager(RequestManagerServicer):
    """Answers as its attributes say.

    Attributes:
        asked: The calls so far.
        authorizations: The headers `authorization` of each call.
        approval: What Approve and Reject return.
        approvals: What ListApprovals returns.
        events: The audit log of the request, newest first.
        failures: The errors of the next calls, by method.
        stages: The request as the next calls of Get return it. The last stage stays.
        streams: What the next calls of Watch send: messages, events to wait for, and an error that ends the
            stream. The last one stays. None: the server is older, and does not know Watch.
        outputs: The messages of the next calls of FollowOutput, by job. A call whose messages have no end
            breaks off. Further calls find no try.
        hold: The event that calls wait for, by method.
    """

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.authorizations: list[list[str]] = []
        self.failures: dict[str, list[SpinCycleError]] = {}
        self.stages = [stage(State.COMPLETE, 5)]
        self.log = [entry()]
        self.events = [event()]
        self.limits = [held_limit("cluster/a"), held_limit("cluster/b", most=2)]
        self.status = RunningStatus(jobs=[running_job()], requests={REQUEST_ID: stage(State.RUNNING, 2)})
        self.specs = [spec(), RequestSpec(name="plain")]
        self.found = [stage(State.COMPLETE, 5)]
        self.approval = approval()
        self.approvals = messages.ListApprovalsResponse(approvals=[approval()])
        self.streams: list[list[messages.WatchResponse | threading.Event | SpinCycleError]] | None = None
        self.outputs: dict[str, list[list[messages.FollowOutputResponse]]] = {}
        self.hold: dict[str, threading.Event] = {}
        self._news = threading.Condition()
        self._ended_streams = 0

    def requests(self, method: str) -> list[Any]:
        """Returns the requests of all calls of a method."""
        return [asked.request for asked in self.asked if asked.method == method]

    def asked_often(self, times: int) -> bool:
        """Waits until there were at least `times` calls. Returns whether there were."""
        with self._news:
            return self._news.wait_for(lambda: len(self.asked) >= times, STEP)

    def ended_often(self, times: int) -> bool:
        """Waits until at least `times` streams of Watch have ended. Returns whether they have."""
        with self._news:
            return self._news.wait_for(lambda: self._ended_streams >= times, STEP)

    def _stream_ended(self) -> None:
        with self._news:
            self._ended_streams += 1
            self._news.notify_all()

    def _called(self, method: str, request: Message, context: Any) -> None:
        with self._news:
            self.asked.append(Asked(method, request, context.time_remaining()))
            headers = context.invocation_metadata()
            self.authorizations.append([value for name, value in headers if name == "authorization"])
            self._news.notify_all()
        if self.failures.get(method):
            _abort(context, self.failures[method].pop(0))
        if method in self.hold:
            self.hold[method].wait(STEP)

    def Create(self, request: messages.CreateRequest, context: Any) -> messages.CreateResponse:
        self._called("Create", request, context)
        return messages.CreateResponse(request=stage(State.PENDING))

    def Plan(self, request: messages.PlanRequest, context: Any) -> messages.PlanResponse:
        self._called("Plan", request, context)
        return messages.PlanResponse(request=Request(type=request.type, job_chain=chain()))

    def Find(self, request: messages.FindRequest, context: Any) -> messages.FindResponse:
        self._called("Find", request, context)
        return messages.FindResponse(requests=self.found)

    def Get(self, request: messages.GetRequest, context: Any) -> messages.GetResponse:
        self._called("Get", request, context)
        _check_id(request.request_id, context)
        seen = self.stages.pop(0) if len(self.stages) > 1 else self.stages[0]
        answer = messages.GetResponse(request=seen)
        if request.view == messages.REQUEST_VIEW_FULL:
            answer.request.job_chain.CopyFrom(chain())
        return answer

    def Start(self, request: messages.StartRequest, context: Any) -> messages.StartResponse:
        self._called("Start", request, context)
        return messages.StartResponse()

    def Stop(self, request: messages.StopRequest, context: Any) -> messages.StopResponse:
        self._called("Stop", request, context)
        return messages.StopResponse()

    def Retry(self, request: messages.RetryRequest, context: Any) -> messages.RetryResponse:
        self._called("Retry", request, context)
        _check_id(request.request_id, context)
        retry = stage(State.PENDING, 3)
        retry.id, retry.retry_of = RETRY_ID, request.request_id
        return messages.RetryResponse(request=retry)

    def Pause(self, request: messages.PauseRequest, context: Any) -> messages.PauseResponse:
        self._called("Pause", request, context)
        return messages.PauseResponse()

    def Resume(self, request: messages.ResumeRequest, context: Any) -> messages.ResumeResponse:
        self._called("Resume", request, context)
        return messages.ResumeResponse()

    def Approve(self, request: messages.ApproveRequest, context: Any) -> messages.ApproveResponse:
        self._called("Approve", request, context)
        return messages.ApproveResponse(approval=self.approval)

    def Reject(self, request: messages.RejectRequest, context: Any) -> messages.RejectResponse:
        self._called("Reject", request, context)
        return messages.RejectResponse(approval=self.approval)

    def ListApprovals(
        self, request: messages.ListApprovalsRequest, context: Any
    ) -> messages.ListApprovalsResponse:
        self._called("ListApprovals", request, context)
        return self.approvals

    def GetJobChain(self, request: messages.GetJobChainRequest, context: Any) -> messages.GetJobChainResponse:
        self._called("GetJobChain", request, context)
        return messages.GetJobChainResponse(job_chain=chain())

    def GetLog(self, request: messages.GetLogRequest, context: Any) -> messages.GetLogResponse:
        self._called("GetLog", request, context)
        _check_id(request.request_id, context)
        return messages.GetLogResponse(entries=_chosen(request, self.log))

    def GetJobLog(self, request: messages.GetJobLogRequest, context: Any) -> messages.GetJobLogResponse:
        self._called("GetJobLog", request, context)
        return messages.GetJobLogResponse(entry=self.log[-1])

    def RequestList(self, request: messages.RequestListRequest, context: Any) -> messages.RequestListResponse:
        self._called("RequestList", request, context)
        return messages.RequestListResponse(specs=self.specs)

    def Running(self, request: messages.RunningRequest, context: Any) -> messages.RunningResponse:
        self._called("Running", request, context)
        return messages.RunningResponse(status=self.status)

    def Watch(self, request: messages.WatchRequest, context: Any) -> Iterator[messages.WatchResponse]:
        self._called("Watch", request, context)
        if self.streams is None:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
            return
        if request.request_id:
            _check_id(request.request_id, context)
        context.add_callback(self._stream_ended)
        for sent in self.streams.pop(0) if len(self.streams) > 1 else self.streams[0]:
            if isinstance(sent, threading.Event):
                while context.is_active() and not sent.wait(0.02):
                    pass
            elif isinstance(sent, SpinCycleError):
                _abort(context, sent)
            else:
                yield sent

    def FollowOutput(
        self, request: messages.FollowOutputRequest, context: Any
    ) -> Iterator[messages.FollowOutputResponse]:
        self._called("FollowOutput", request, context)
        _check_id(request.request_id, context)
        parts = self.outputs.get(request.job_id)
        if not parts:
            _abort(context, NotFoundError("the try did not run", reason="JOB_NOT_FOUND"))
            return
        part = parts.pop(0)
        yield from part
        if not part or not part[-1].HasField("end"):
            _abort(context, UnavailableError("the server is shutting down", reason="SHUTTING_DOWN"))

    def ListAuditEvents(
        self, request: messages.ListAuditEventsRequest, context: Any
    ) -> messages.ListAuditEventsResponse:
        self._called("ListAuditEvents", request, context)
        _check_id(request.filter.request_id, context)
        first = int(request.filter.page_token or 0)
        end = first + (request.filter.limit or len(self.events))
        return messages.ListAuditEventsResponse(
            events=self.events[first:end], next_page_token=str(end) if end < len(self.events) else ""
        )

    def CountRequests(
        self, request: messages.CountRequestsRequest, context: Any
    ) -> messages.CountRequestsResponse:
        self._called("CountRequests", request, context)
        counts = [
            StateCount(state=STATE_PENDING, count=3),
            StateCount(state=STATE_COMPLETE, count=10_000, more=True),
        ]
        return messages.CountRequestsResponse(counts=counts)

    def ListRunners(self, request: messages.ListRunnersRequest, context: Any) -> messages.ListRunnersResponse:
        self._called("ListRunners", request, context)
        runners = [
            Runner(id="r1", url="http://r1:1", version="2.0", job_types=["nap"], running_jobs=2,
                   running_requests=1),
            Runner(id="r2", url="http://r2:1", labels={"zone": "a"}, knows_all_job_types=True, draining=True,
                   silent=True, running_requests=10_000, more_requests=True),
        ]  # fmt: skip
        place = int(request.page_token or 0)  # One runner a page.
        token = "" if place else "1"
        return messages.ListRunnersResponse(runners=runners[place : place + 1], next_page_token=token)

    def ListLimits(self, request: messages.ListLimitsRequest, context: Any) -> messages.ListLimitsResponse:
        self._called("ListLimits", request, context)
        place = int(request.page_token or 0)  # One key a page.
        token = "1" if place + 1 < len(self.limits) else ""
        return messages.ListLimitsResponse(limits=self.limits[place : place + 1], next_page_token=token)

    def GetConfiguration(
        self, request: messages.GetConfigurationRequest, context: Any
    ) -> messages.GetConfigurationResponse:
        self._called("GetConfiguration", request, context)
        return messages.GetConfigurationResponse(
            version="2.0",
            api_version="1.0.12",
            database="sqlite",
            options=[ConfigurationOption(name="auth.read", value="acl", source="a.yaml")],
            health=[HealthCheck(name="database", healthy=False, message="gone")],
        )

    def ListDeliveries(
        self, request: messages.ListDeliveriesRequest, context: Any
    ) -> messages.ListDeliveriesResponse:
        self._called("ListDeliveries", request, context)
        deliveries = [
            Delivery(event_id=f"{2:020x}", target="ops", event="failed", request_id="r1", request_type="nap",
                     state=DELIVERY_STATE_WAITING, attempts=3, last_error="status 500"),
            Delivery(event_id=f"{1:020x}", target="ops", event="test", state=DELIVERY_STATE_DELIVERED,
                     attempts=1),
        ]  # fmt: skip
        if request.filter.event_id:  # The target "down" never accepts anything.
            return messages.ListDeliveriesResponse(deliveries=[deliveries[request.filter.target != "down"]])
        place = int(request.filter.page_token or 0)  # One delivery a page.
        token = "" if place else "1"
        return messages.ListDeliveriesResponse(
            deliveries=deliveries[place : place + 1], targets=["ops"], next_page_token=token
        )

    def Redeliver(self, request: messages.RedeliverRequest, context: Any) -> messages.RedeliverResponse:
        self._called("Redeliver", request, context)
        return messages.RedeliverResponse()

    def SendTestNotification(
        self, request: messages.SendTestNotificationRequest, context: Any
    ) -> messages.SendTestNotificationResponse:
        self._called("SendTestNotification", request, context)
        return messages.SendTestNotificationResponse(event_id=f"{1:020x}")

    def GetCaller(self, request: messages.GetCallerRequest, context: Any) -> messages.GetCallerResponse:
        self._called("GetCaller", request, context)
        return messages.GetCallerResponse(
            user="finch",
            roles=["dba", "ops"],
            auth_method="token",
            is_admin=True,
            permissions=[TypePermissions(type="nap", operations=["start", "stop"])],
        )

    def Version(
        self, request: messages.RequestManagerVersionRequest, context: Any
    ) -> messages.RequestManagerVersionResponse:
        self._called("Version", request, context)
        return messages.RequestManagerVersionResponse(version="1.0.12")


@contextlib.contextmanager
def serving(manager: FakeManager, credentials: grpc.ServerCredentials | None = None) -> Iterator[str]:
    """Serves a manager on the loopback interface, with TLS if there are credentials. Yields its address."""
    with ThreadPoolExecutor(8) as threads:
        server = grpc.server(threads)
        add_RequestManagerServicer_to_server(manager, server)
        port = (
            server.add_insecure_port("127.0.0.1:0")
            if credentials is None
            else server.add_secure_port("127.0.0.1:0", credentials)
        )
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            for event in manager.hold.values():
                event.set()
            server.stop(None).wait()
