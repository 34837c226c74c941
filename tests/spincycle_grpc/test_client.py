"""The synchronous client: deadlines, retries, errors, waits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import grpc
import grpc_testing  # type: ignore[import-untyped]
import pytest

from spincycle_grpc import Client, State, calls, errors
from spincycle_grpc.retries import MAX_TRIES, Tries
from spincycle_grpc.v1 import request_manager_pb2 as messages
from spincycle_server.rpc.status import status_of
from tests.fake_manager import REQUEST_ID, FakeManager, serving, stage
from tests.limits import STEP

SERVICE = messages.DESCRIPTOR.services_by_name["RequestManager"]

CALLS: dict[str, Callable[[Client], object]] = {
    "Create": lambda client: client.create("nap", {"ms": "1"}),
    "Plan": lambda client: client.plan("nap", {"ms": "1"}),
    "Find": lambda client: client.find(type="nap"),
    "Get": lambda client: client.get(REQUEST_ID),
    "Start": lambda client: client.start(REQUEST_ID),
    "Stop": lambda client: client.stop(REQUEST_ID),
    "GetJobChain": lambda client: client.job_chain(REQUEST_ID),
    "GetLog": lambda client: client.log(REQUEST_ID),
    "GetJobLog": lambda client: client.job_log(REQUEST_ID, "aB3x"),
    "RequestList": lambda client: client.request_list(),
    "Running": lambda client: client.running(REQUEST_ID),
    "ListAuditEvents": lambda client: client.list_audit_events(request_id=REQUEST_ID),
    "CountRequests": lambda client: client.count_requests(type="nap"),
    "ListRunners": lambda client: client.list_runners(),
    "ListLimits": lambda client: client.list_limits(),
    "GetConfiguration": lambda client: client.get_configuration(),
    "GetCaller": lambda client: client.get_caller(),
    "Version": lambda client: client.version(),
}
NEVER_RETRIED = {"Start", "Stop"}


class Channel:
    """A channel of grpcio-testing that also records the deadlines of calls."""

    def __init__(self) -> None:
        self.testing = grpc_testing.channel([SERVICE], grpc_testing.strict_real_time())
        self.timeouts: list[float | None] = []

    def unary_unary(self, method: str, *args: Any, **options: Any) -> Callable[..., Any]:
        call = self.testing.unary_unary(method, *args, **options)

        def remember(request: Any, timeout: float | None = None) -> Any:
            self.timeouts.append(timeout)
            return call(request, timeout=timeout)

        return remember

    def unary_stream(self, method: str, *args: Any, **options: Any) -> Callable[..., Any]:
        opened: Callable[..., Any] = self.testing.unary_stream(method, *args, **options)
        return opened

    def take(self, method: str) -> tuple[Any, Any]:
        """Waits for a call. Returns its request, and the object that answers it."""
        _, request, rpc = self.testing.take_unary_unary(SERVICE.methods_by_name[method])
        return request, rpc

    def answer(self, method: str, response: Any) -> Any:
        """Answers the next call of a method. Returns its request."""
        request, rpc = self.take(method)
        rpc.terminate(response, (), grpc.StatusCode.OK, "")
        return request

    def fail(self, method: str, error: errors.SpinCycleError) -> None:
        """Fails the next call of a method as the servers do."""
        status: Any = status_of(error)
        self.take(method)[1].terminate(None, status.trailing_metadata, status.code, status.details)


@pytest.fixture
def channel() -> Channel:
    return Channel()


@pytest.fixture
def client(channel: Channel) -> Client:
    made: Any = channel
    return Client("server:1", channel=made)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


@pytest.mark.parametrize("method", CALLS)
def test_every_call_has_a_deadline(
    method: str, channel: Channel, client: Client, threads: ThreadPoolExecutor
) -> None:
    called = threads.submit(CALLS[method], client)
    channel.answer(method, getattr(messages, SERVICE.methods_by_name[method].output_type.name)())
    called.result(STEP)
    [timeout] = channel.timeouts
    assert timeout is not None
    assert 29 < timeout <= 30


def test_a_call_can_override_the_deadline(
    channel: Channel, client: Client, threads: ThreadPoolExecutor
) -> None:
    called = threads.submit(client.version, deadline=3)
    channel.answer("Version", messages.RequestManagerVersionResponse(version="1.0.12"))
    assert called.result(STEP) == "1.0.12"
    assert channel.timeouts == [pytest.approx(3, abs=0.5)]


@pytest.mark.parametrize("deadline", [0, -1, float("nan")])
def test_a_deadline_must_be_positive(deadline: float, client: Client) -> None:
    with pytest.raises(errors.InvalidArgumentError, match="must be a positive number"):
        Client(deadline=deadline)
    with pytest.raises(errors.InvalidArgumentError, match="must be a positive number"):
        client.version(deadline=deadline)


@pytest.mark.parametrize("method", sorted(CALLS.keys() - NEVER_RETRIED))
def test_safe_calls_are_retried(
    method: str, channel: Channel, client: Client, threads: ThreadPoolExecutor
) -> None:
    called = threads.submit(CALLS[method], client)
    channel.fail(method, errors.UnavailableError("shutting down"))
    channel.fail(method, errors.UnavailableError("shutting down"))
    channel.answer(method, getattr(messages, SERVICE.methods_by_name[method].output_type.name)())
    called.result(STEP)
    first, *others = channel.timeouts
    assert all(later is not None and first is not None and later < first for later in others)


@pytest.mark.parametrize("method", sorted(NEVER_RETRIED))
def test_calls_that_do_more_the_second_time_are_never_retried(
    method: str, channel: Channel, client: Client, threads: ThreadPoolExecutor
) -> None:
    called = threads.submit(CALLS[method], client)
    channel.fail(method, errors.UnavailableError("shutting down"))
    with pytest.raises(errors.UnavailableError, match="shutting down"):
        called.result(STEP)
    assert len(channel.timeouts) == 1


def test_all_tries_of_a_create_share_a_new_idempotency_key(
    channel: Channel, client: Client, threads: ThreadPoolExecutor
) -> None:
    keys = []
    for given in (None, None, "mine"):
        called = threads.submit(client.create, "nap", idempotency_key=given)
        request, rpc = channel.take("Create")
        status: Any = status_of(errors.UnavailableError("shutting down"))
        rpc.terminate(None, status.trailing_metadata, status.code, status.details)
        again = channel.answer("Create", messages.CreateResponse(request=stage(State.PENDING)))
        called.result(STEP)
        assert again == request
        keys.append(request.idempotency_key)
    assert len(set(keys)) == 3
    assert all(len(key) == 32 for key in keys[:2])
    assert keys[2] == "mine"


def test_only_unavailable_is_retried(channel: Channel, client: Client, threads: ThreadPoolExecutor) -> None:
    for error in (errors.ResourceExhaustedError("full"), errors.InternalError("broken")):
        called = threads.submit(client.version)
        channel.fail("Version", error)
        with pytest.raises(type(error)):
            called.result(STEP)
    assert len(channel.timeouts) == 2


def test_there_is_no_retry_after_the_deadline(
    channel: Channel, client: Client, threads: ThreadPoolExecutor
) -> None:
    called = threads.submit(client.version, deadline=0.01)
    channel.fail("Version", errors.UnavailableError("shutting down"))
    with pytest.raises(errors.UnavailableError):
        called.result(STEP)


def test_the_pauses_between_tries_grow_and_end() -> None:
    assert pauses_of(1) == []
    many = [pauses_of(MAX_TRIES) for _ in range(50)]
    for pauses, longest in zip(zip(*many, strict=True), (0.1, 0.2, 0.4, 0.8), strict=True):
        assert all(longest / 2 <= pause <= longest for pause in pauses)
        assert len(set(pauses)) > 1


def pauses_of(limit: int) -> list[float]:
    """Returns the pauses in seconds between the tries of a call to a server that is unavailable."""
    tries = Tries(3600, limit)
    pauses: list[float] = []
    while True:
        tries.begin()
        pause = tries.wait_after(Unavailable())
        if pause is None:
            return pauses
        pauses.append(pause)


class Unavailable(grpc.RpcError):
    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE


def test_the_contract_says_which_calls_are_retried() -> None:
    assert calls.start(REQUEST_ID).max_tries == 1
    assert calls.stop(REQUEST_ID).max_tries == 1, "a second stop would skip finally nodes"
    assert calls.pause(REQUEST_ID, now=False).max_tries == MAX_TRIES
    assert calls.create("nap", {}, None).max_tries == MAX_TRIES
    assert calls.Call("Create", messages.CreateRequest(type="nap"), str).max_tries == 1


def test_an_error_keeps_the_reason_and_request_of_the_server(
    channel: Channel, client: Client, threads: ThreadPoolExecutor
) -> None:
    called: Future[object] = threads.submit(client.stop, REQUEST_ID)
    channel.fail(
        "Stop",
        errors.FailedPreconditionError("it has failed", reason="ALREADY_FAILED", request_id=REQUEST_ID),
    )
    with pytest.raises(errors.FailedPreconditionError) as caught:
        called.result(STEP)
    assert caught.value.message == "it has failed"
    assert caught.value.reason == "ALREADY_FAILED"
    assert caught.value.request_id == REQUEST_ID


def test_calls_send_their_arguments(channel: Channel, client: Client, threads: ThreadPoolExecutor) -> None:
    called = threads.submit(
        client.find,
        type="nap",
        states=[State.FAIL, State.STOPPED],
        user="finch",
        since=datetime(2026, 11, 23, 15, 47, 18, tzinfo=UTC),
        limit=10,
        offset=20,
        args={"host": "db1", "n": 5, "list": ["a", None]},
    )
    request = channel.answer("Find", messages.FindResponse(requests=[stage(State.FAIL)]))
    assert [found.id for found in called.result(STEP)] == [REQUEST_ID]
    sent = request.filter
    assert (sent.type, list(sent.states), sent.user) == ("nap", [4, 6], "finch")
    assert sent.since.ToJsonString() == "2026-11-23T15:47:18Z"
    assert not sent.HasField("until")
    assert (sent.limit, sent.offset) == (10, 20)
    assert list(sent.args) == ["host=db1", "n=5", 'list=["a",null]']
    created = threads.submit(client.create, "nap", {"ms": 5})
    request = channel.answer("Create", messages.CreateResponse(request=stage(State.PENDING)))
    assert (request.type, request.args["ms"]) == ("nap", 5)
    assert State(created.result(STEP).state) is State.PENDING
    got = threads.submit(client.get, REQUEST_ID, with_job_chain=False)
    assert channel.answer("Get", messages.GetResponse()).view == messages.REQUEST_VIEW_BASIC
    got.result(STEP)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda client: client.create("nap", {"ms": 2**60}), "ms: "),
        (lambda client: client.create("nap", {"ms": object()}), "ms: "),
        (lambda client: client.create("\udcff"), "not Unicode"),
        (lambda client: client.find(limit=-1), "out of range"),
        (lambda client: client.find(since=datetime.min), "out of range"),
    ],
)
def test_invalid_arguments_are_refused_before_the_call(
    call: Callable[[Client], object], message: str, client: Client
) -> None:
    with pytest.raises(errors.InvalidArgumentError, match=message):
        call(client)


def test_an_unreachable_server_is_one_sentence() -> None:
    with Client("127.0.0.1:1", deadline=3) as client:
        with pytest.raises(errors.UnavailableError) as caught:
            client.version()
        with pytest.raises(errors.UnavailableError):
            client.wait(REQUEST_ID)
    assert "127.0.0.1:1" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_silent_server_exceeds_the_deadline() -> None:
    manager = FakeManager()
    manager.hold["Version"] = threading.Event()
    with (
        serving(manager) as address,
        Client(address) as client,
        pytest.raises(errors.DeadlineExceededError, match="did not answer in time"),
    ):
        client.version(deadline=2)
    assert len(manager.asked) == 1


def test_a_wait_reports_changes_until_the_request_ends() -> None:
    manager = FakeManager()
    manager.stages = [
        stage(State.PENDING),
        stage(State.RUNNING, 1),
        stage(State.RUNNING, 1),
        stage(State.RUNNING, 2),
        stage(State.FAIL, 2),
    ]
    manager.failures["Get"] = [errors.UnavailableError("shutting down")]
    seen: list[tuple[int, int]] = []
    with serving(manager) as address, Client(address) as client:
        ended = client.wait(
            REQUEST_ID, on_change=lambda request: seen.append((request.state, request.finished_jobs))
        )
    assert State(ended.state) is State.FAIL
    assert not ended.HasField("job_chain")
    assert seen == [(State.PENDING, 0), (State.RUNNING, 1), (State.RUNNING, 2), (State.FAIL, 2)]
    assert {request.view for request in manager.requests("Get")} == {messages.REQUEST_VIEW_BASIC}


def test_a_wait_ends_at_its_deadline() -> None:
    manager = FakeManager()
    manager.stages = [stage(State.RUNNING)]
    with serving(manager) as address, Client(address) as client:
        with pytest.raises(errors.DeadlineExceededError) as caught:
            client.wait(REQUEST_ID, deadline=2)
        with pytest.raises(errors.NotFoundError) as not_found:
            client.wait("nosuch")
    assert (caught.value.reason, caught.value.request_id) == ("WAITED_TOO_LONG", REQUEST_ID)
    assert (not_found.value.reason, not_found.value.request_id) == ("REQUEST_NOT_FOUND", "nosuch")


def test_a_wait_ends_at_its_deadline_during_a_poll() -> None:
    manager = FakeManager()
    manager.stages = [stage(State.RUNNING)]
    held = threading.Event()
    with serving(manager) as address, Client(address) as client:
        with pytest.raises(errors.DeadlineExceededError) as caught:
            client.wait(REQUEST_ID, deadline=3, on_change=lambda _: manager.hold.update(Get=held))
        assert (caught.value.reason, caught.value.request_id) == ("WAITED_TOO_LONG", REQUEST_ID)
        with pytest.raises(errors.DeadlineExceededError) as caught:
            client.wait(REQUEST_ID, deadline=0.1)
        assert caught.value.reason == "DEADLINE_EXCEEDED"  # No poll has shown that the request exists.
        held.set()


def test_closing_a_client_ends_its_waits(threads: ThreadPoolExecutor) -> None:
    manager = FakeManager()
    manager.stages = [stage(State.RUNNING)]
    seen = threading.Event()
    with serving(manager) as address:
        client = Client(address)
        waiting = threads.submit(client.wait, REQUEST_ID, on_change=lambda _: seen.set())
        assert seen.wait(STEP)
        client.close()
        with pytest.raises(errors.CallCancelledError) as caught:
            waiting.result(STEP)
        assert caught.value.reason == "CLIENT_CLOSED"
        with pytest.raises(errors.CallCancelledError):
            client.version()


def test_closing_a_client_ends_its_calls(threads: ThreadPoolExecutor) -> None:
    manager = FakeManager()
    manager.hold["Version"] = threading.Event()
    with serving(manager) as address:
        client = Client(address)
        calling = threads.submit(client.version)
        assert manager.asked_often(1)
        client.close()
        with pytest.raises(errors.CallCancelledError):
            calling.result(STEP)
