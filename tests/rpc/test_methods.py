"""What wraps each method: the gate, throttling, authentication, errors and the log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from spincycle_grpc.auth import Caller
from spincycle_grpc.errors import (
    ERROR_CLASSES,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    ResourceExhaustedError,
    SpinCycleError,
    UnauthenticatedError,
    UnavailableError,
)
from spincycle_grpc.v1 import request_manager_pb2, runner_reports_pb2
from spincycle_grpc.v1.request_manager_pb2 import GetRequest, WatchRequest, WatchResponse
from spincycle_grpc.v1.runner_reports_pb2 import ReportRequest, ReportResponse
from spincycle_server.identity import (
    METHOD_ACCESS,
    Authentication,
    Cluster,
    Credentials,
    Identity,
    MethodAccess,
)
from spincycle_server.rpc import CallContext, Gate, Method, MethodTable
from spincycle_server.rpc.gate import MAX_LINES
from tests.limits import STEP

SERVICE = request_manager_pb2.DESCRIPTOR.services_by_name["RequestManager"]
REPORTS = runner_reports_pb2.DESCRIPTOR.services_by_name["RunnerReports"]

RESERVED_GET = {**METHOD_ACCESS, "spincycle.v1.RequestManager.Get": MethodAccess.SERVER}
"""A table in which other servers call Get."""

REQUEST = GetRequest(request_id="abc")
CONTEXT = CallContext(credentials=Credentials({"token": "secret"}, "ipv4:10.0.0.1:99"))


class Servicer:
    """A Request Manager whose methods all do what a test says."""

    def __init__(self, behavior: Callable[..., Awaitable[object]]) -> None:
        self._behavior = behavior

    def __getattr__(self, _: str) -> Callable[..., Awaitable[object]]:
        return self._behavior


class ByToken:
    """Identifies callers by their token. Records what it was asked."""

    hint = "a token"

    def __init__(self) -> None:
        self.asked: list[Credentials] = []
        self.is_revoked = False

    async def identify(self, credentials: Credentials) -> Identity:
        self.asked.append(credentials)
        if credentials.metadata.get("token") != "secret":
            raise UnauthenticatedError("send a token", reason="NO_TOKEN")
        return Identity(Caller("ada", frozenset({"ops"})), "token", lambda: not self.is_revoked)


def reading(request: object) -> Callable[[], Awaitable[object]]:
    """Returns a function that reads a request, or raises the error that is given in its place."""

    async def read() -> object:
        if isinstance(request, Exception):
            raise request
        return request

    return read


async def answer_context(request: object, context: CallContext) -> object:
    return context


async def do_nothing(request: object, context: CallContext) -> object:
    return None


def raising(error: BaseException) -> Callable[..., Awaitable[object]]:
    async def behavior(request: object, context: CallContext) -> object:
        raise error

    return behavior


def method_of(
    behavior: Callable[..., Awaitable[object]],
    *,
    gate: Gate | None = None,
    authenticator: ByToken | None = None,
    access: Mapping[str, MethodAccess] = METHOD_ACCESS,
) -> Method:
    authentication = Authentication([authenticator] if authenticator else [])
    table = MethodTable(SERVICE, Servicer(behavior), gate or Gate(10), authentication, access=access)
    return table.methods["Get"]


async def failed(call: Awaitable[object]) -> tuple[SpinCycleError, list[EventDict]]:
    """Returns the error of a call, and what it logged."""
    with capture_logs() as logs, pytest.raises(SpinCycleError) as caught:
        await call
    return caught.value, list(logs)


def test_a_table_has_all_methods_of_its_service() -> None:
    table = MethodTable(SERVICE, Servicer(do_nothing), Gate(1), access=RESERVED_GET)
    assert set(table.methods) == {descriptor.name for descriptor in SERVICE.methods}
    assert table.methods["Get"].request_type is GetRequest
    assert {name for name, method in table.methods.items() if method.is_reserved} == {"Get"}
    assert not any(method.is_stream for method in table.methods.values())
    assert {name for name, method in table.methods.items() if method.is_server_stream} == {
        "FollowOutput",
        "Watch",
    }


async def test_without_an_authenticator_the_caller_is_nobody() -> None:
    context = await method_of(answer_context).call(reading(REQUEST), CONTEXT)
    assert context == CONTEXT
    assert context.caller == Caller()


async def test_the_authenticator_gets_metadata_and_peer_and_the_method_gets_the_caller() -> None:
    authenticator = ByToken()
    context = await method_of(answer_context, authenticator=authenticator).call(reading(REQUEST), CONTEXT)
    assert authenticator.asked == [CONTEXT.credentials]
    assert context.caller == Caller("ada", frozenset({"ops"}))
    assert (context.transport, context.credentials) == ("grpc", CONTEXT.credentials)


async def test_a_caller_that_is_not_authenticated_does_not_reach_the_method() -> None:
    method = method_of(raising(AssertionError("called")), authenticator=ByToken())
    context = CallContext(credentials=Credentials(peer="somewhere"))
    error, logs = await failed(method.call(reading(REQUEST), context))
    assert error.reason == "NO_TOKEN"
    assert [(event["reason"], event["peer"]) for event in logs] == [("NO_TOKEN", "somewhere")]


@pytest.mark.parametrize(
    ("token", "reason"), [("secret", "BAD_MESSAGE"), ("", "NO_TOKEN")], ids=["known", "unknown"]
)
async def test_only_an_authenticated_caller_learns_that_its_request_could_not_be_parsed(
    token: str, reason: str
) -> None:
    method = method_of(do_nothing, authenticator=ByToken())
    broken = InvalidArgumentError("not a GetRequest", reason="BAD_MESSAGE")
    context = CallContext(credentials=Credentials({"token": token}))
    error, _ = await failed(method.call(reading(broken), context))
    assert error.reason == reason


async def test_a_full_gate_refuses_calls_before_anybody_is_asked_who_calls() -> None:
    authenticator = ByToken()
    error, _ = await failed(
        method_of(do_nothing, gate=Gate(0), authenticator=authenticator).call(reading(REQUEST), CONTEXT)
    )
    assert error.reason == "TOO_MANY_CALLS"
    assert not authenticator.asked


async def test_a_full_gate_admits_calls_of_other_servers() -> None:
    assert (
        await method_of(do_nothing, gate=Gate(0), access=RESERVED_GET).call(reading(REQUEST), CONTEXT) is None
    )


async def test_a_closed_gate_refuses_calls() -> None:
    gate = Gate(10)
    gate.close()
    error, _ = await failed(method_of(do_nothing, gate=gate).call(reading(REQUEST), CONTEXT))
    assert error.reason == "SHUTTING_DOWN"


@pytest.mark.parametrize(
    "error", [NotFoundError("no"), ResourceExhaustedError("full"), ValueError("bug"), None], ids=repr
)
async def test_every_call_leaves_the_gate(error: Exception | None) -> None:
    gate = Gate(1)
    method = method_of(do_nothing if error is None else raising(error), gate=gate)
    for _ in range(2):
        if error is None:
            await method.call(reading(REQUEST), CONTEXT)
        else:
            await failed(method.call(reading(REQUEST), CONTEXT))
    async with asyncio.timeout(STEP):
        await gate.wait_idle()


async def test_a_cancelled_call_leaves_the_gate_and_is_not_an_error() -> None:
    gate = Gate(1)
    method = method_of(lambda *_: asyncio.sleep(STEP), gate=gate)
    with capture_logs() as logs:
        call = asyncio.create_task(method.call(reading(REQUEST), CONTEXT))
        while not gate.is_full:  # noqa: ASYNC110 (the gate has no event for this)
            await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert not gate.is_full
    assert not logs


class CountingGate(Gate):
    """Counts calls that wait for their turn."""

    turns = 0

    def turn(self) -> None:
        self.turns += 1


@pytest.mark.parametrize(
    ("is_throttled", "access", "turns"),
    [(True, METHOD_ACCESS, 1), (False, METHOD_ACCESS, 0), (True, RESERVED_GET, 0)],
)
async def test_only_throttled_calls_of_users_wait_for_their_turn(
    is_throttled: bool, access: Mapping[str, MethodAccess], turns: int
) -> None:
    gate = CountingGate(10)
    context = CallContext(is_throttled=is_throttled)
    await method_of(do_nothing, gate=gate, access=access).call(reading(REQUEST), context)
    assert gate.turns == turns


@pytest.mark.parametrize("error_class", ERROR_CLASSES.values())
async def test_an_error_of_a_method_is_raised_unchanged(error_class: type[SpinCycleError]) -> None:
    raised = error_class("the pot is empty", reason="POT_EMPTY")
    error, _ = await failed(method_of(raising(raised)).call(reading(REQUEST), CONTEXT))
    assert error is raised


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (NotFoundError("no such request", reason="REQUEST_NOT_FOUND"), "info"),
        (UnavailableError("the database is away", reason="DATABASE_AWAY"), "warning"),
        (InternalError("broken", reason="BROKEN"), "warning"),
    ],
    ids=["caller's fault", "server unavailable", "server's fault"],
)
async def test_a_failed_call_is_logged_once(error: SpinCycleError, level: str) -> None:
    _, (event,) = await failed(method_of(raising(error)).call(reading(REQUEST), CONTEXT))
    assert event.pop("seconds") >= 0
    assert event == {
        "event": "call failed",
        "log_level": level,
        "method": "spincycle.v1.RequestManager.Get",
        "request_id": "abc",
        "reason": error.reason,
        "error": error.message,
        "transport": "grpc",
        "peer": CONTEXT.peer,
    }


async def test_the_log_names_the_request_of_the_error_rather_than_of_the_call() -> None:
    error = NotFoundError("no such request", request_id="xyz")
    _, (event,) = await failed(method_of(raising(error)).call(reading(REQUEST), CONTEXT))
    assert event["request_id"] == "xyz"


async def test_refusals_by_the_gate_are_counted_and_not_logged_one_by_one() -> None:
    method = method_of(raising(AssertionError("called")), gate=Gate(0))
    with capture_logs() as logs:
        for _ in range(2):
            with pytest.raises(ResourceExhaustedError):
                await method.call(reading(REQUEST), CONTEXT)
        async with asyncio.timeout(STEP):
            while not logs:  # noqa: ASYNC110 (a log has no event)
                await asyncio.sleep(0.01)
    assert [event["calls"] for event in logs] == [{"TOO_MANY_CALLS": 2}]


async def test_a_stream_ends_when_the_credential_of_its_caller_is_revoked() -> None:
    tokens = ByToken()
    requests: asyncio.Queue[ReportRequest] = asyncio.Queue()

    async def from_queue() -> AsyncIterator[ReportRequest]:
        while True:
            yield await requests.get()

    answers = stream_of(Reports(), tokens).call(from_queue(), CONTEXT)
    requests.put_nowait(ReportRequest())
    assert await anext(answers) == ReportResponse()
    tokens.is_revoked = True
    async with asyncio.timeout(STEP):  # although no further message comes
        error, _ = await failed(anext(answers))
    assert error.reason == "CREDENTIALS_ENDED"


async def test_refusals_by_a_method_are_counted_and_not_logged_one_by_one() -> None:
    gate = Gate(10)
    method = method_of(raising(ResourceExhaustedError("full", reason="TOO_MANY_WRITES")), gate=gate)
    with capture_logs() as logs:
        for _ in range(3):
            with pytest.raises(ResourceExhaustedError):
                await method.call(reading(REQUEST), CONTEXT)
        async with asyncio.timeout(STEP):
            while not logs:  # noqa: ASYNC110 (a log has no event)
                await asyncio.sleep(0.01)
    assert [event["calls"] for event in logs] == [{"TOO_MANY_WRITES": 3}]


async def test_many_calls_of_unknown_callers_have_few_lines_in_the_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr("spincycle_server.rpc.gate.time", SimpleNamespace(monotonic=lambda: now))
    method = method_of(do_nothing, authenticator=ByToken())
    with capture_logs() as logs:
        for _ in range(MAX_LINES + 5):
            with pytest.raises(UnauthenticatedError):
                await method.call(reading(REQUEST), CallContext())
        async with asyncio.timeout(STEP):
            while len(logs) <= MAX_LINES:  # noqa: ASYNC110 (a log has no event)
                await asyncio.sleep(0.01)
        now += 1.0
        with pytest.raises(UnauthenticatedError):
            await method.call(reading(REQUEST), CallContext())
    events = [event["event"] for event in logs]
    assert events == ["call failed"] * MAX_LINES + ["calls refused", "call failed"]
    assert logs[MAX_LINES]["calls"] == {"NO_TOKEN": 5}


async def test_an_unexpected_exception_becomes_an_internal_error_and_only_the_log_has_its_text() -> None:
    bug = ValueError("secret of the code")
    error, (event,) = await failed(method_of(raising(bug)).call(reading(REQUEST), CONTEXT))
    assert isinstance(error, InternalError)
    assert (error.request_id, error.reason) == ("abc", "INTERNAL")
    assert "secret" not in error.message
    assert (event["log_level"], event["request_id"]) == ("error", "abc")
    assert event["exc_info"] is bug


async def test_a_successful_call_is_logged_at_level_debug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spincycle_server.rpc.methods.writes_debug", lambda: True)
    with capture_logs() as logs:
        await method_of(do_nothing).call(reading(REQUEST), CONTEXT)
    assert [(event["event"], event["log_level"]) for event in logs] == [("call", "debug")]
    assert logs[0]["method"] == "spincycle.v1.RequestManager.Get"


class Reports:
    """Answers reports. Fails as a test says."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error
        self.callers: list[Caller] = []

    def __getattr__(self, _: str) -> None:
        return None

    async def Report(
        self, requests: AsyncIterator[ReportRequest], context: CallContext
    ) -> AsyncIterator[ReportResponse]:
        self.callers.append(context.caller)
        async for _ in requests:
            yield ReportResponse()
        if self._error is not None:
            raise self._error


async def sent(*requests: Any) -> AsyncIterator[Any]:
    for request in requests:
        if isinstance(request, Exception):
            raise request
        yield request


def stream_of(servicer: object, authenticator: ByToken | None = None, gate: Gate | None = None) -> Method:
    """Returns the method Report, open to users instead of servers."""
    authentication = Authentication([authenticator] if authenticator else [])
    access = dict.fromkeys(METHOD_ACCESS, MethodAccess.REQUEST)
    return MethodTable(REPORTS, servicer, gate or Gate(1), authentication, access=access).methods["Report"]


class Watched:
    """A servicer whose method Watch answers twice, then fails if there is an error, and ends."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error
        self.is_held = asyncio.Event()
        self.is_held.set()

    def __getattr__(self, _: str) -> None:
        return None

    async def Watch(self, request: WatchRequest, context: CallContext) -> AsyncIterator[WatchResponse]:
        yield WatchResponse(cursor=request.request_id)
        await self.is_held.wait()
        yield WatchResponse(cursor=context.caller.name)
        if self._error is not None:
            raise self._error


def watch_of(servicer: object, authenticator: ByToken | None = None, gate: Gate | None = None) -> Method:
    authentication = Authentication([authenticator] if authenticator else [])
    return MethodTable(SERVICE, servicer, gate or Gate(1), authentication).methods["Watch"]


WATCH_REQUEST = WatchRequest(request_id="one")


async def test_a_method_with_a_stream_of_responses_reads_its_request_and_knows_its_caller() -> None:
    method = watch_of(Watched(), ByToken())
    answers = [answer.cursor async for answer in method.call(reading(WATCH_REQUEST), CONTEXT)]
    assert answers == ["one", "ada"]


async def test_a_stream_of_responses_takes_no_place_of_the_gate() -> None:
    gate = Gate(1)
    answers = watch_of(Watched(), gate=gate).call(reading(WATCH_REQUEST), CONTEXT)
    await anext(answers)
    gate.check()
    await answers.aclose()


@pytest.mark.parametrize(("limit", "reason"), [(0, "TOO_MANY_CALLS"), (1, "SHUTTING_DOWN")])
async def test_a_gate_that_is_full_or_closed_admits_no_stream_of_responses(limit: int, reason: str) -> None:
    gate = Gate(limit)
    if limit:
        gate.close()
    with pytest.raises(SpinCycleError) as caught:
        await anext(watch_of(Watched(), gate=gate).call(reading(WATCH_REQUEST), CONTEXT))
    assert caught.value.reason == reason


async def test_a_stream_of_responses_ends_when_the_credential_of_its_caller_is_revoked() -> None:
    tokens, servicer = ByToken(), Watched()
    servicer.is_held.clear()
    answers = watch_of(servicer, tokens).call(reading(WATCH_REQUEST), CONTEXT)
    await anext(answers)
    tokens.is_revoked = True
    async with asyncio.timeout(STEP):
        error, _ = await failed(anext(answers))
    assert error.reason == "CREDENTIALS_ENDED"


async def test_a_stream_of_responses_ends_when_the_server_shuts_down() -> None:
    gate, servicer = Gate(1), Watched()
    servicer.is_held.clear()
    answers = watch_of(servicer, gate=gate).call(reading(WATCH_REQUEST), CONTEXT)
    await anext(answers)
    ending = asyncio.ensure_future(failed(anext(answers)))
    await asyncio.sleep(0)
    gate.close()
    async with asyncio.timeout(STEP):
        error, _ = await ending
    assert error.reason == "SHUTTING_DOWN"


@pytest.mark.parametrize(
    ("error", "reason", "event_name"),
    [
        (NotFoundError("no", reason="NO"), "NO", "call failed"),
        (ValueError("secret"), "INTERNAL", "call raised an unexpected exception"),
    ],
    ids=["an error", "an unexpected exception"],
)
async def test_a_stream_of_responses_that_fails_raises_an_error_and_logs_it_with_the_request(
    error: Exception, reason: str, event_name: str
) -> None:
    answers = []

    async def read() -> None:
        async for answer in watch_of(Watched(error)).call(reading(WATCH_REQUEST), CONTEXT):
            answers.append(answer)

    raised, (event,) = await failed(read())
    assert len(answers) == 2
    assert (raised.reason, event["event"], event["request_id"]) == (reason, event_name, "one")
    assert "secret" not in raised.message


async def test_a_stream_answers_as_long_as_requests_come() -> None:
    servicer = Reports()
    method = stream_of(servicer, ByToken())
    answers = [answer async for answer in method.call(sent(ReportRequest(), ReportRequest()), CONTEXT)]
    assert answers == [ReportResponse(), ReportResponse()]
    assert method.is_stream
    assert [caller.name for caller in servicer.callers] == ["ada"]


async def test_streams_do_not_count_as_calls() -> None:
    gate = Gate(0)
    gate.close()
    method = stream_of(Reports(), gate=gate)
    assert [answer async for answer in method.call(sent(ReportRequest()), CONTEXT)] == [ReportResponse()]


@pytest.mark.parametrize(
    ("error", "reason", "event_name"),
    [
        (NotFoundError("no", reason="NO"), "NO", "call failed"),
        (ValueError("secret"), "INTERNAL", "call raised an unexpected exception"),
    ],
    ids=["an error", "an unexpected exception"],
)
async def test_a_stream_that_fails_raises_an_error_and_logs_it(
    error: Exception, reason: str, event_name: str
) -> None:
    answers = []

    async def read() -> None:
        async for answer in stream_of(Reports(error)).call(sent(ReportRequest()), CONTEXT):
            answers.append(answer)

    raised, (event,) = await failed(read())
    assert len(answers) == 1
    assert raised.reason == reason
    assert "secret" not in raised.message
    assert event["event"] == event_name


@pytest.mark.parametrize(("token", "reason"), [("secret", "BAD_MESSAGE"), ("", "NO_TOKEN")])
async def test_a_stream_of_a_request_that_could_not_be_parsed_fails(token: str, reason: str) -> None:
    broken = InvalidArgumentError("not a ReportRequest", reason="BAD_MESSAGE")
    context = CallContext(credentials=Credentials({"token": token}))

    async def read() -> None:
        async for _ in stream_of(Reports(), ByToken()).call(sent(broken), context):
            pass

    error, _ = await failed(read())
    assert error.reason == reason


class TestDenials:
    """What `on_denied` is told, for the audit log."""

    @staticmethod
    async def denials(
        behavior: Callable[..., Awaitable[object]],
        context: CallContext = CONTEXT,
        *,
        access: Mapping[str, MethodAccess] = METHOD_ACCESS,
    ) -> list[tuple[str, CallContext, SpinCycleError, object]]:
        told: list[tuple[str, CallContext, SpinCycleError, object]] = []
        table = MethodTable(
            SERVICE,
            Servicer(behavior),
            Gate(10),
            Authentication([ByToken()], Cluster(), admin_roles=["admin"]),
            access=access,
            on_denied=lambda *denial: told.append(denial),
        )
        with pytest.raises(SpinCycleError):
            await table.methods["Get"].call(reading(REQUEST), context)
        return told

    async def test_a_caller_whom_the_method_denies_is_known_with_the_request(self) -> None:
        error = PermissionDeniedError("no", reason="ACCESS_DENIED")
        [(method, context, told, request)] = await self.denials(raising(error))
        assert method == "spincycle.v1.RequestManager.Get"
        assert (context.caller.name, context.identity.method) == ("ada", "token")
        assert (told, request) == (error, REQUEST)

    async def test_an_unknown_caller_is_nobody_and_its_request_is_not_read(self) -> None:
        [(_, context, error, request)] = await self.denials(do_nothing, CallContext())
        assert (context.caller, request) == (Caller(), None)
        assert error.reason == "NO_TOKEN"

    @pytest.mark.parametrize(
        ("access", "reason"), [(MethodAccess.ADMIN, "ACCESS_DENIED"), (MethodAccess.SERVER, "SERVERS_ONLY")]
    )
    async def test_a_known_caller_is_named_if_the_method_is_not_for_it(
        self, access: MethodAccess, reason: str
    ) -> None:
        table = {**METHOD_ACCESS, "spincycle.v1.RequestManager.Get": access}
        [(_, context, error, request)] = await self.denials(do_nothing, access=table)
        assert (context.caller.name, error.reason, request) == ("ada", reason, None)

    async def test_other_errors_are_not_denials(self) -> None:
        assert await self.denials(raising(NotFoundError("none"))) == []
