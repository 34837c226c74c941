"""One try of a job: whatever the job does affects only its own try."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from enum import Enum, IntEnum
from typing import Any

import pytest

from spincycle_grpc.jobs import Job, JobId, Return, UnknownJobTypeError
from spincycle_grpc.state import State
from spincycle_grpc.v1.job_pb2 import Job as JobMessage
from spincycle_server.builtin_jobs import builtin_factory
from spincycle_server.call_threads import CallThreads
from spincycle_server.chain import Run
from spincycle_server.job_runner.job_try import JobTry
from spincycle_server.job_runner.try_result import MAX_JOB_DATA, TryResult
from spincycle_server.job_runner.user_job import MAX_STATUS, TryResources
from tests.limits import STEP

MAX_OUTPUT = 1000
STOP_LIMIT = 0.3


class Scripted(Job):
    """A job whose methods the test supplies."""

    def __init__(
        self,
        run: Callable[[dict[str, Any]], Any] = lambda data: Return(),
        stop: Callable[[], Any] = lambda: None,
        status: Callable[[], Any] = lambda: "",
    ) -> None:
        self._run, self._stop, self._status = run, stop, status

    def run(self, job_data: dict[str, Any]) -> Return:
        result: Return = self._run(job_data)
        return result

    def stop(self) -> Any:
        return self._stop()

    def status(self) -> str:
        said: str = self._status()
        return said


class ScriptedOnLoop(Scripted):
    async def run(self, job_data: dict[str, Any]) -> Return:  # type: ignore[override]
        result: Return = await self._run(job_data)
        return result

    async def stop(self) -> None:
        await self._stop()


def resources_for(
    job: Job | BaseException | None = None, *, threads: int = 4, stop_limit: float = STEP
) -> TryResources:
    def factory(job_id: JobId) -> Job:
        if isinstance(job, BaseException):
            raise job
        return job if job is not None else builtin_factory(job_id)

    return TryResources(
        factory=factory,
        runs=CallThreads("run", threads),
        calls=CallThreads("call", threads),
        statuses=CallThreads("status", threads),
        max_output=MAX_OUTPUT,
        stop_limit=stop_limit,
    )


def a_try(resources: TryResources, data: dict[str, Any] | None = None, **fields: Any) -> JobTry:
    message = JobMessage(**{"id": "job1", "name": "the job", "type": "t", **fields})
    return JobTry(Run("job1", 3, 1), "request", message, data or {}, resources)


async def ended(job_try: JobTry) -> TryResult:
    async with asyncio.timeout(STEP):
        return await job_try.result()


async def result_of(job: Job | BaseException, data: dict[str, Any] | None = None, **fields: Any) -> TryResult:
    return await ended(a_try(resources_for(job), data, **fields))


async def made(*tries: JobTry) -> None:
    """Waits until the jobs of tries have been created."""
    async with asyncio.timeout(STEP):
        while any(not one.is_made for one in tries):  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def begun(*tries: JobTry) -> None:
    """Waits until the jobs of tries have begun to run."""
    async with asyncio.timeout(STEP):
        while not all(one.has_begun for one in tries):  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def state_of(result: TryResult) -> State:
    return State(result.entry.state)


async def hang() -> None:
    await asyncio.Event().wait()


def hanging_thread() -> Callable[[], None]:
    """Returns a function that blocks its daemon thread until the test is over."""
    return lambda: time.sleep(STEP)


def raising(error: BaseException) -> Callable[..., Any]:
    def run(*_: Any) -> Return:
        raise error

    return run


def raising_on_loop(error: BaseException) -> Callable[..., Any]:
    async def run(*_: Any) -> Return:
        raise error

    return run


class NamelessError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no name")


async def test_a_try_that_completes() -> None:
    def run(data: dict[str, Any]) -> Return:
        data["out"] = data["in"] + 1
        return Return(stdout="said", stderr="warned")

    result = await result_of(Scripted(run), {"in": 41})
    entry = result.entry
    assert (entry.request_id, entry.job_id, entry.name, entry.type) == ("request", "job1", "the job", "t")
    assert (getattr(entry, "try"), State(entry.state), entry.exit) == (3, State.COMPLETE, 0)
    assert (entry.stdout, entry.stderr, entry.error) == ("said", "warned", "")
    assert 0 < entry.started_at <= entry.finished_at
    assert result.data is not None
    assert (result.data["in"], result.data["out"]) == (41, 42)
    assert not result.is_last


@pytest.mark.parametrize("make", [raising, raising_on_loop], ids=["in a thread", "on the loop"])
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("no disk"), "no disk"),
        (KeyError(), "KeyError"),
        (NamelessError(), "NamelessError"),
        (SystemExit(3), "3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (asyncio.CancelledError(), "CancelledError"),
        (RecursionError("too deep"), "too deep"),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_an_exception_of_a_job_becomes_its_error(make: Any, error: BaseException, said: str) -> None:
    kind = Scripted if make is raising else ScriptedOnLoop
    result = await result_of(kind(make(error)))
    assert state_of(result) is State.FAIL
    assert (result.entry.exit, result.entry.error) == (1, f"panic from job.Run: {said}")
    assert not result.is_last


@pytest.mark.parametrize("rubbish", [None, "done", 7, {"state": 3}, Return], ids=repr)
async def test_a_job_that_does_not_return_a_return_fails(rubbish: object) -> None:
    entry = (await result_of(Scripted(lambda _: rubbish))).entry
    assert State(entry.state) is State.FAIL
    assert entry.error.endswith("which is not a Return")


class _Unchecked(Return):
    def __post_init__(self) -> None:
        """Checks nothing."""


@pytest.mark.parametrize(
    "returned",
    [
        _Unchecked(state="COMPLETE"),  # type: ignore[arg-type]
        _Unchecked(exit=2**70),
        _Unchecked(exit="0"),  # type: ignore[arg-type]
        _Unchecked(error=None),  # type: ignore[arg-type]
        _Unchecked(stdout=b"bytes"),  # type: ignore[arg-type]
        type("Unprintable", (), {"__repr__": raising(SystemExit(1))})(),
        type("Surrogate", (), {"__repr__": lambda _: "\ud800"})(),
    ],
)
async def test_a_job_that_returns_wrong_values_fails(returned: object) -> None:
    entry = (await result_of(Scripted(lambda _: returned))).entry
    assert State(entry.state) is State.FAIL
    assert entry.error.endswith("which is not a Return")


@pytest.mark.parametrize("text", ["\ud800", "a\udcffb", "\udfff" * 5000])
async def test_lone_surrogates_in_the_texts_of_a_job_become_other_characters(text: str) -> None:
    raised = await result_of(Scripted(raising(ValueError(text))))
    assert state_of(raised) is State.FAIL
    assert raised.entry.error.startswith("panic from job.Run: ")
    refused = await result_of(ValueError(text))
    assert refused.entry.error.startswith("problem creating job runner: ")
    returned = await result_of(Scripted(lambda _: _Unchecked(error=text, stdout=text, stderr=text)))
    assert state_of(returned) is State.COMPLETE
    assert "?" in returned.entry.stdout


@pytest.mark.parametrize(
    ("status", "shown"),
    [
        (lambda: "\ud800", "\\ud800"),
        (lambda: None, "None"),
        (lambda: b"bytes", "b'bytes'"),
        (raising(ValueError("\udc80")), "(no status: \\udc80)"),
        (raising(SystemExit(1)), "(no status: 1)"),
    ],
)
async def test_a_status_is_text_that_an_answer_can_carry(status: Any, shown: str) -> None:
    job_try = a_try(resources_for(Scripted(lambda _: hanging_thread()(), status=status)))
    work = asyncio.ensure_future(job_try.result())
    await begun(job_try)
    assert await job_try.status(STEP) == shown
    work.cancel()


async def test_several_callers_share_one_call_of_a_status() -> None:
    asked: list[int] = []
    released = threading.Event()

    def status() -> str:
        asked.append(1)
        released.wait(STEP)
        return "shown"

    job_try = a_try(resources_for(Scripted(lambda _: hanging_thread()(), status=status)))
    work = asyncio.ensure_future(job_try.result())
    await begun(job_try)
    callers = [asyncio.ensure_future(job_try.status(STEP)) for _ in range(3)]
    await asyncio.sleep(0)  # All wait now.
    released.set()
    assert await asyncio.gather(*callers) == ["shown"] * 3
    assert len(asked) == 1
    work.cancel()


async def test_a_very_long_status_is_cut() -> None:
    job_try = a_try(resources_for(Scripted(lambda _: hanging_thread()(), status=lambda: "x" * 10**7)))
    work = asyncio.ensure_future(job_try.result())
    await begun(job_try)
    assert len(await job_try.status(STEP)) <= MAX_STATUS
    work.cancel()


async def test_job_data_that_is_not_json_fails_the_try_and_keeps_its_output() -> None:
    def run(data: dict[str, Any]) -> Return:
        data["key"] = object()
        return Return(stdout="said")

    result = await result_of(Scripted(run))
    assert (state_of(result), result.entry.stdout, result.data) == (State.FAIL, "said", None)
    assert result.entry.error.startswith("job data: data.key")


def _circle() -> list[Any]:
    circle: list[Any] = []
    circle.append(circle)
    return circle


def _repeated(times: int, depth: int) -> list[Any]:
    """Returns lists that contain each other, with `times ** depth` values in few objects."""
    value: list[Any] = [1]
    for _ in range(depth):
        value = [value] * times
    return value


class _Exits(Mapping[str, Any]):
    def __getitem__(self, key: str) -> Any:
        raise SystemExit(1)

    def __iter__(self) -> Any:
        raise SystemExit(1)

    def __len__(self) -> int:
        return 1


class _Unprintable:
    def __repr__(self) -> str:
        raise SystemExit(1)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("key", "\udc80"),
        ("\ud800", "value"),
        ("key", {"in": ["\udfff"]}),
        ("key", {"\ud800": 1}),
        ("key", b"bytes"),
        ("key", {1, 2}),
        ("key", {3: "three"}),
        ("key", {_Unprintable(): 1}),
        ("key", float("nan")),
        ("key", float("-inf")),
        ("key", 10**6000),
        ("key", 2**53 + 1),
        ("key", 1j),
        ("key", _circle()),
        ("key", _repeated(10, 20)),
        ("key", _Exits()),
        ("key", _Unprintable()),
        (b"\xff", 1),
        (None, 1),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_job_data_without_a_json_form_fails_the_try_with_a_clear_error(key: Any, value: Any) -> None:
    def run(data: dict[str, Any]) -> Return:
        data[key] = value
        return Return(stdout="said")

    result = await result_of(Scripted(run))
    assert (state_of(result), result.entry.stdout, result.data) == (State.FAIL, "said", None)
    assert result.entry.error.startswith("job data: ")


async def test_job_data_keeps_the_values_of_enums_and_text_with_zero_bytes() -> None:
    class Color(str, Enum):  # noqa: UP042 (its str() is another text, unlike that of StrEnum)
        RED = "red"

    class Level(IntEnum):
        HIGH = 3

    def run(data: dict[str, Any]) -> Return:
        data.update(color=Color.RED, level=Level.HIGH, text="a\0b")
        return Return()

    result = await result_of(Scripted(run))
    assert result.data is not None
    assert dict(result.data) == {"color": "red", "level": 3, "text": "a\0b"}


async def test_job_data_that_is_too_large_fails_the_try() -> None:
    def run(data: dict[str, Any]) -> Return:
        data["key"] = "x" * MAX_JOB_DATA
        return Return(stdout="said")

    result = await result_of(Scripted(run))
    assert (state_of(result), result.entry.stdout, result.data) == (State.FAIL, "said", None)
    assert result.entry.error.startswith("job data: ")
    assert f"the limit is {MAX_JOB_DATA}:" in result.entry.error


async def test_a_job_cannot_change_the_data_of_the_chain() -> None:
    data: dict[str, Any] = {"hosts": ["a"]}

    def run(own: dict[str, Any]) -> Return:
        own["hosts"].append("b")
        return Return()

    await result_of(Scripted(run), data)
    assert data == {"hosts": ["a"]}


@pytest.mark.parametrize(
    "error", [UnknownJobTypeError("job type t is unknown"), ValueError("bad bytes"), SystemExit("out")]
)
async def test_a_job_that_cannot_be_created_fails_for_good(error: BaseException) -> None:
    result = await result_of(error)
    assert result.is_last
    assert state_of(result) is State.FAIL
    assert (result.entry.started_at, result.entry.finished_at, result.entry.exit) == (0, 0, 1)
    assert result.entry.error == f"problem creating job runner: {error}"


async def test_a_job_that_is_told_to_stop_ends_as_stopped() -> None:
    stopped = asyncio.Event()

    async def run(_: dict[str, Any]) -> Return:
        await stopped.wait()
        return Return(State.FAIL, 9, "interrupted", "out", "err")

    async def stop() -> None:
        stopped.set()

    job_try = a_try(resources_for(ScriptedOnLoop(run, stop)))
    running = asyncio.ensure_future(ended(job_try))
    await begun(job_try)
    job_try.stop()
    entry = (await running).entry
    assert (State(entry.state), entry.exit, entry.error, entry.stdout) == (
        State.STOPPED,
        9,
        "interrupted",
        "out",
    )


async def test_a_job_that_is_stopped_during_its_creation_does_not_run() -> None:
    begun, release = threading.Event(), threading.Event()

    def factory(job_id: JobId) -> Job:
        begun.set()
        release.wait(STEP)
        return Scripted(raising(AssertionError("it ran")))

    resources = resources_for()
    resources.factory, resources.stop_limit = factory, STEP
    job_try = a_try(resources)
    running = asyncio.ensure_future(ended(job_try))
    await asyncio.to_thread(begun.wait, STEP)
    job_try.stop()
    await asyncio.sleep(0)
    release.set()
    assert state_of(await running) is State.STOPPED


async def test_a_job_that_completes_after_a_stop_is_complete() -> None:
    stopped = threading.Event()

    def run(_: dict[str, Any]) -> Return:
        stopped.wait()
        return Return()

    job_try = a_try(resources_for(Scripted(run, stopped.set)))
    running = asyncio.ensure_future(ended(job_try))
    await begun(job_try)
    job_try.stop()
    assert state_of(await running) is State.COMPLETE


@pytest.mark.parametrize(
    ("run", "stop"),
    [
        (lambda _: hang(), hang),
        (lambda _: hang(), raising_on_loop(ValueError("cannot stop"))),
        (lambda _: hang(), raising_on_loop(SystemExit(1))),
    ],
    ids=["hangs", "raises", "exits"],
)
async def test_a_job_that_does_not_stop_fails_after_the_stop_limit(run: Any, stop: Any) -> None:
    job_try = a_try(resources_for(ScriptedOnLoop(run, stop), stop_limit=STOP_LIMIT))
    running = asyncio.ensure_future(ended(job_try))
    await begun(job_try)
    job_try.stop()
    result = await running
    assert state_of(result) is State.FAIL
    assert result.entry.error == f"did not stop within {STOP_LIMIT:g}s"


async def test_hanging_jobs_do_not_keep_others_from_running() -> None:
    """Jobs hang in `run` and `stop` of all threads and are given up. Other jobs still run."""
    resources = resources_for(
        Scripted(lambda _: hanging_thread()(), hanging_thread()), threads=2, stop_limit=STOP_LIMIT
    )
    hanging = [a_try(resources) for _ in range(2)]
    running = [asyncio.ensure_future(ended(one)) for one in hanging]
    await begun(*hanging)
    for one in hanging:
        one.stop()
    for result in asyncio.as_completed(running):
        assert state_of(await result) is State.FAIL
    resources.factory = lambda job_id: Scripted()
    assert state_of(await ended(a_try(resources))) is State.COMPLETE


async def test_a_job_that_times_out_is_stopped_and_may_be_retried() -> None:
    stopped = asyncio.Event()

    async def run(_: dict[str, Any]) -> Return:
        await stopped.wait()
        return Return(State.STOPPED, 0, "", "so far")

    async def stop() -> None:
        stopped.set()

    resources = resources_for(ScriptedOnLoop(run, stop))
    resources.on_loop.add("t")  # So the job begins at once, and not after its timeout on a busy machine.
    result = await ended(a_try(resources, timeout="50ms"))
    entry = result.entry
    assert (State(entry.state), entry.exit, entry.error) == (State.FAIL, 1, "timed out after 50ms")
    assert entry.stdout == "so far"
    assert not result.is_last


async def test_a_job_stopped_with_an_error_fails_for_good() -> None:
    job_try = a_try(resources_for(ScriptedOnLoop(lambda _: hang(), hang), stop_limit=STOP_LIMIT))
    running = asyncio.ensure_future(ended(job_try))
    await asyncio.sleep(0)
    job_try.stop("sequence timed out after 1s")
    result = await running
    assert (result.entry.error, result.is_last) == ("sequence timed out after 1s", True)


async def test_a_try_that_is_stopped_before_it_begins_does_not_run_its_job() -> None:
    job_try = a_try(resources_for(Scripted(raising(AssertionError("it ran")))))
    job_try.stop()
    assert state_of(await ended(job_try)) is State.STOPPED


async def test_while_a_status_call_hangs_the_last_status_is_shown() -> None:
    answers = iter(["halfway", None])
    asked = []

    def status() -> str:
        asked.append(1)
        answer = next(answers)
        if answer is None:
            hanging_thread()()
        return answer or ""

    release = threading.Event()

    def run(_: dict[str, Any]) -> Return:
        release.wait(STEP)
        return Return()

    job_try = a_try(resources_for(Scripted(run, status=status)))
    running = asyncio.ensure_future(ended(job_try))
    await begun(job_try)
    assert await job_try.status(STEP) == "halfway"
    for _ in range(3):
        assert await job_try.status(0.05) == "halfway"
    assert len(asked) == 2, "a status that hangs is not asked again"
    release.set()
    assert state_of(await running) is State.COMPLETE


async def test_an_exception_in_status_is_shown_as_the_status() -> None:
    release = threading.Event()
    job = Scripted(lambda _: Return() if release.wait(STEP) else None, status=raising(SystemExit("gone")))
    job_try = a_try(resources_for(job))
    running = asyncio.ensure_future(ended(job_try))
    await begun(job_try)
    assert await job_try.status(STEP) == "(no status: gone)"
    release.set()
    await running


async def test_output_over_the_limit_is_cut_and_says_so() -> None:
    entry = (await result_of(Scripted(lambda _: Return(stdout="a" * 5000 + "z" * 5000)))).entry
    assert len(entry.stdout.encode()) <= MAX_OUTPUT
    assert entry.stdout.startswith("aaa")
    assert entry.stdout.endswith("zzz")
    assert "bytes" in entry.stdout


async def test_five_thousand_sleepers_need_no_thread() -> None:
    resources = resources_for()
    before = threading.active_count()
    tries = [a_try(resources, type="sleep", bytes=b'{"duration":60000000000}') for _ in range(5000)]
    running = [asyncio.ensure_future(one.result()) for one in tries]
    await begun(*tries)
    statuses = await asyncio.gather(*(one.status(STEP) for one in tries))
    assert set(statuses) == {"sleeping"}
    assert threading.active_count() - before <= 8
    for one in tries:
        one.stop()
    async with asyncio.timeout(STEP):
        results = await asyncio.gather(*running)
    assert {state_of(result) for result in results} == {State.STOPPED}


async def test_blocking_jobs_wait_for_a_free_thread() -> None:
    at_once, most = 0, 0
    lock = threading.Lock()

    def run(_: dict[str, Any]) -> Return:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.01)
        with lock:
            at_once -= 1
        return Return()

    resources = resources_for(Scripted(run), threads=3)
    results = await asyncio.gather(*(ended(a_try(resources)) for _ in range(30)))
    assert {state_of(result) for result in results} == {State.COMPLETE}
    assert most == 3


async def test_a_job_that_is_stopped_while_it_waits_for_a_thread_ends_at_once() -> None:
    begun, release = threading.Event(), threading.Event()

    def run(_: dict[str, Any]) -> Return:
        assert not begun.is_set(), "a job ran that was told to stop"
        begun.set()
        release.wait(STEP)
        return Return()

    resources = resources_for(Scripted(run), threads=1)
    first, second = a_try(resources), a_try(resources)
    running = asyncio.ensure_future(ended(first))
    await asyncio.to_thread(begun.wait, STEP)
    waiting = asyncio.ensure_future(ended(second))
    await made(second)
    second.stop()
    assert state_of(await waiting) is State.STOPPED
    release.set()
    assert state_of(await running) is State.COMPLETE


class LateThreads(CallThreads):
    """Threads that are slow to begin their call."""

    def __init__(self) -> None:
        super().__init__("late", 1)
        self.is_in_thread, self.begin, self.is_made = threading.Event(), threading.Event(), threading.Event()

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        def late() -> Any:
            self.is_in_thread.set()
            self.begin.wait(STEP)
            try:
                return function(*args)
            finally:
                self.is_made.set()

        return await super().call(late)


async def test_a_job_that_is_told_to_stop_does_not_begin_while_the_event_loop_has_no_turn() -> None:
    """A lease can expire and be renewed within one turn. Jobs that its expiry suspended must not start."""
    threads = LateThreads()
    resources = resources_for(Scripted(raising(AssertionError("it ran"))))
    resources.runs = threads
    job_try = a_try(resources)
    running = asyncio.ensure_future(ended(job_try))
    await asyncio.to_thread(threads.is_in_thread.wait, STEP)
    job_try.stop()
    threads.begin.set()
    assert threads.is_made.wait(STEP)
    assert not job_try.has_begun
    assert state_of(await running) is State.STOPPED


@pytest.mark.parametrize("job", [Scripted, ScriptedOnLoop])
async def test_a_job_does_not_run_if_the_runner_may_not_start_jobs(job: Any) -> None:
    resources = resources_for(job(raising(AssertionError("it ran"))))
    message = JobMessage(id="job1", name="the job", type="t")
    job_try = JobTry(Run("job1", 3, 1), "request", message, {}, resources, may_start=lambda: False)
    assert state_of(await ended(job_try)) is State.STOPPED
