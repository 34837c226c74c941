"""The limits of a runner: how many chains it takes, and how many jobs in them."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from spincycle_grpc.errors import (
    ERROR_CLASSES,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
    Status,
)
from spincycle_grpc.state import State
from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.approval_pb2 import ApprovalKey
from spincycle_grpc.v1.job_pb2 import Job, JobChain, JobIds, SuspendedJobChain
from spincycle_grpc.v1.job_runner_pb2 import (
    AssignedJobChain,
    JobChainStart,
    JobRunnerFollowOutputRequest,
    NewJobChainRequest,
    RunningJobsRequest,
    StartJobChainsRequest,
    Suspect,
    WatchCapacityRequest,
)
from spincycle_grpc.v1.limit_pb2 import SequenceLimitWait
from spincycle_grpc.v1.runner_reports_pb2 import Assignment
from spincycle_grpc.v1.status_pb2 import JobStatus, StatusFilter
from spincycle_server.chain import RunningChain
from spincycle_server.job_runner import service as service_module
from spincycle_server.job_runner.chain_outputs import ChainOutputs
from spincycle_server.job_runner.chains import LARGE_CHAIN, Chains
from spincycle_server.job_runner.follow_pace import FollowPace
from spincycle_server.job_runner.service import JobRunnerService
from spincycle_server.job_runner.traverser import Traverser
from spincycle_server.job_runner.try_output import HeldOutput, TryOutput
from spincycle_server.rpc import CallContext
from tests.limits import STEP


class EndlessTraverser:
    """Runs a chain until the test ends it. Its jobs do not matter here."""

    is_pausing = False
    approvals: Sequence[ApprovalKey] = ()
    limit_waits: Sequence[SequenceLimitWait] = ()

    def __init__(self) -> None:
        self.end: Callable[[], None] = lambda: None

    def start(self, on_done: Callable[[], None], ending: State | None = None) -> None:
        self.end = on_done


class WorkingTraverser(EndlessTraverser):
    """Has one running job."""

    def __init__(self, request_id: str) -> None:
        super().__init__()
        self._request_id = request_id

    async def status(self) -> list[JobStatus]:
        return [JobStatus(request_id=self._request_id)]


class Runner:
    """A runner's chains. The test decides when they end."""

    def __init__(self, **limits: int) -> None:
        self._running: dict[str, EndlessTraverser] = {}
        self.chains = Chains("runner", self._make, **{"max_chains": 100, **limits})

    def _make(self, chain: RunningChain, assignment: Assignment, suspect: Suspect | None) -> Traverser:
        traverser = self._running[assignment.request_id] = EndlessTraverser()
        return cast("Traverser", traverser)

    async def take(self, request_id: str, jobs: int = 1) -> None:
        await self.chains.start_new(a_chain(request_id, jobs), 1)

    def end(self, request_id: str) -> None:
        self._running.pop(request_id).end()

    def held(self) -> set[str]:
        return {assignment.request_id for assignment in self.chains.assignments()}


def a_chain(request_id: str, jobs: int) -> JobChain:
    """Returns a chain of jobs that run one after another."""
    ids = [f"j{number:03d}" for number in range(jobs)]
    chain = JobChain(request_id=request_id, state=state_pb2.STATE_PENDING)
    for job_id in ids:
        fields: dict[str, Any] = {"name": job_id, "type": "work", "sequence_id": ids[0]}
        chain.jobs[job_id].CopyFrom(Job(id=job_id, state=state_pb2.STATE_PENDING, **fields))
    for before, after in itertools.pairwise(ids):
        chain.adjacency_list[before].CopyFrom(JobIds(ids=[after]))
    return chain


async def refusal_of(runner: Runner, request_id: str, jobs: int = 1) -> ResourceExhaustedError:
    """Returns the error that refuses a chain. The runner must not hold the chain."""
    with pytest.raises(ResourceExhaustedError) as raised:
        await runner.take(request_id, jobs)
    assert request_id not in runner.held()
    return raised.value


async def test_a_runner_at_its_limit_of_jobs_takes_no_more_chains() -> None:
    runner = Runner(max_jobs=5)
    await runner.take("a", 3)
    await runner.take("b", 2)
    refusal = await refusal_of(runner, "c")
    assert refusal.reason == "TOO_MANY_CHAINS"
    assert "5 jobs" in refusal.message
    assert runner.held() == {"a", "b"}


async def test_a_runner_below_its_limit_of_jobs_takes_a_chain_of_any_size() -> None:
    runner = Runner(max_jobs=5)
    await runner.take("a", 4)
    await runner.take("b", 20)
    assert (await refusal_of(runner, "c")).reason == "TOO_MANY_CHAINS"


async def test_an_empty_runner_takes_a_chain_larger_than_its_limit() -> None:
    runner = Runner(max_jobs=5)
    await runner.take("a", 50)
    assert runner.held() == {"a"}
    assert (await refusal_of(runner, "b")).reason == "TOO_MANY_CHAINS"


async def test_the_jobs_of_an_ended_chain_no_longer_count() -> None:
    runner = Runner(max_jobs=5)
    await runner.take("a", 4)
    await runner.take("b", 4)
    await refusal_of(runner, "c")
    runner.end("a")
    await runner.take("c", 4)
    await refusal_of(runner, "d")
    runner.end("b")
    runner.end("c")
    await runner.take("d", 50)
    assert runner.held() == {"d"}


async def test_a_refused_chain_does_not_count() -> None:
    runner = Runner(max_jobs=5)
    await runner.take("a", 5)
    for _ in range(3):
        await refusal_of(runner, "b", 50)
    runner.end("a")
    await runner.take("b", 4)
    await runner.take("c", 1)
    assert runner.held() == {"b", "c"}


async def test_a_full_runner_accepts_a_chain_that_it_already_holds() -> None:
    runner = Runner(max_jobs=5)
    await runner.take("a", 5)
    await runner.take("a", 5)
    runner.end("a")
    await runner.take("b", 4)
    await runner.take("c", 1)  # The jobs of the first were counted once.
    await refusal_of(runner, "d")


async def test_chains_count_whatever_their_number_of_jobs() -> None:
    runner = Runner(max_chains=2)
    await runner.take("a")
    await runner.take("b")
    refusal = await refusal_of(runner, "c")
    assert refusal.reason == "TOO_MANY_CHAINS"
    assert "2 chains" in refusal.message
    runner.end("a")
    await runner.take("c")


async def test_the_room_of_a_runner_depends_on_its_chains_and_on_their_jobs() -> None:
    runner = Runner(max_chains=4, max_jobs=100)
    assert runner.chains.room == 4
    await runner.take("a", 10)
    assert runner.chains.room == 3
    await runner.take("b", 85)
    assert runner.chains.room == 1  # It takes a chain as long as it has fewer than 100 jobs.
    await runner.take("c", 5)
    assert runner.chains.room == 0
    runner.end("b")
    assert runner.chains.room == 2
    await runner.take("d")
    await runner.take("e")
    assert runner.chains.room == 0


async def test_a_place_is_offered_once_its_chain_has_left() -> None:
    runner = Runner(max_chains=1)
    service = JobRunnerService(runner.chains)
    await runner.take("a")
    answers = service.WatchCapacity(WatchCapacityRequest(wanted_places=2), CallContext())
    offer = asyncio.ensure_future(anext(answers))
    await asyncio.sleep(0)
    assert runner.chains.capacity.wanted == 2
    runner.end("a")
    assert (await offer).places == 1
    await runner.take("b")
    offer = asyncio.ensure_future(anext(answers))
    await asyncio.sleep(0)
    runner.end("b")
    assert (await offer).places == 1
    with pytest.raises(StopAsyncIteration):
        await anext(answers)


async def test_places_of_a_runner_that_had_the_address_before_are_not_offered() -> None:
    service = JobRunnerService(Runner().chains)
    with pytest.raises(FailedPreconditionError) as raised:
        await anext(service.WatchCapacity(WatchCapacityRequest(runner_id="earlier"), CallContext()))
    assert raised.value.reason == "OTHER_RUNNER"


async def test_a_large_chain_is_linked_once_although_its_caller_gives_up_and_calls_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise no call would wait long enough for a chain whose linking takes longer than a call may."""
    linked: list[str] = []
    begins, goes_on = threading.Event(), threading.Event()
    link = RunningChain.new

    def wait_and_link(job_chain: JobChain) -> RunningChain:
        linked.append(job_chain.request_id)
        begins.set()
        assert goes_on.wait(STEP)
        return link(job_chain)

    monkeypatch.setattr(RunningChain, "new", wait_and_link)
    runner = Runner()
    first = asyncio.create_task(runner.take("a", LARGE_CHAIN + 1))
    assert await asyncio.to_thread(begins.wait, STEP)
    second = asyncio.create_task(runner.take("a", LARGE_CHAIN + 1))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert runner.held() == set()
    goes_on.set()
    await second
    assert (linked, runner.held()) == (["a"], {"a"})
    await runner.take("a", LARGE_CHAIN + 1)
    assert runner.held() == {"a"}


async def test_an_invalid_large_chain_is_refused() -> None:
    runner = Runner()
    chain = a_chain("a", LARGE_CHAIN + 1)
    chain.adjacency_list["j000"].ids.append("none")
    with pytest.raises(InvalidArgumentError):
        await runner.chains.start_new(chain, 1)
    await runner.take("a", LARGE_CHAIN + 1)
    assert runner.held() == {"a"}


async def test_suspended_chains_count_and_are_refused_like_new_ones() -> None:
    runner = Runner(max_jobs=5)
    chain = a_chain("a", 5)
    await runner.chains.resume(SuspendedJobChain(request_id="a", job_chain=chain), 1)
    await refusal_of(runner, "b")
    with pytest.raises(ResourceExhaustedError):
        await runner.chains.resume(SuspendedJobChain(request_id="c", job_chain=a_chain("c", 1)), 1)


def told(start: JobChainStart) -> tuple[type[Exception], str] | None:
    """Returns the class and the reason of the error in an answer, or None."""
    if not start.HasField("error"):
        return None
    return ERROR_CLASSES[Status.from_grpc_code(start.error.code)], start.error.reason


async def test_a_message_with_too_many_chains_starts_only_as_many_as_fit() -> None:
    runner = Runner(max_jobs=5)
    await runner.take("held", 3)
    message = StartJobChainsRequest(
        runner_id="runner",
        chains=[
            AssignedJobChain(epoch=1, job_chain=a_chain("a", 2)),
            AssignedJobChain(epoch=1, job_chain=a_chain("b", 1)),
            AssignedJobChain(epoch=1, job_chain=a_chain("held", 3)),
        ],
    )
    answer = await JobRunnerService(runner.chains).StartJobChains(message, CallContext())
    assert [told(start) for start in answer.starts] == [
        None,
        (ResourceExhaustedError, "TOO_MANY_CHAINS"),
        None,
    ]
    assert runner.held() == {"held", "a"}


async def test_output_is_followed_under_the_current_assignment_of_a_job_of_the_chain() -> None:
    service = JobRunnerService(runner_with_output())
    await service.NewJobChain(NewJobChainRequest(job_chain=a_chain("a", 1), epoch=3), CallContext())
    for request_id, epoch, job_id, reason in (
        ("b", 3, "j000", "JOB_CHAIN_NOT_FOUND"),
        ("a", 2, "j000", "JOB_CHAIN_NOT_FOUND"),
        ("a", 3, "zzzz", "JOB_NOT_FOUND"),
    ):
        request = JobRunnerFollowOutputRequest(request_id=request_id, epoch=epoch, job_id=job_id)
        with pytest.raises(NotFoundError) as raised:
            await anext(service.FollowOutput(request, CallContext()))
        assert raised.value.reason == reason


async def test_streams_of_output_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "MAX_FOLLOWERS", 1)
    service = JobRunnerService(runner_with_output())
    await service.NewJobChain(NewJobChainRequest(job_chain=a_chain("a", 1), epoch=3), CallContext())
    request = JobRunnerFollowOutputRequest(request_id="a", job_id="j000", epoch=3)
    first = service.FollowOutput(request, CallContext())
    assert (await anext(first)).begun_try == 1
    with pytest.raises(ResourceExhaustedError) as raised:
        await anext(service.FollowOutput(request, CallContext()))
    assert raised.value.reason == "TOO_MANY_FOLLOWERS"
    await first.aclose()
    assert (await anext(service.FollowOutput(request, CallContext()))).begun_try == 1


class TalkingTraverser(EndlessTraverser):
    """Runs a chain whose only job is in its first try."""

    def __init__(self, chain: RunningChain) -> None:
        super().__init__()
        self.outputs = ChainOutputs(lambda job_id: 1, FollowPace())
        self.outputs.begin("j000", 1, TryOutput(1000, HeldOutput()))
        self._jobs = chain.jobs

    def has_job(self, job_id: str) -> bool:
        return job_id in self._jobs


def runner_with_output() -> Chains:
    return Chains(
        "runner", lambda chain, assignment, suspect: cast("Traverser", TalkingTraverser(chain)), max_chains=10
    )


async def test_running_jobs_are_those_of_the_requests_that_are_asked_for() -> None:
    chains = Chains(
        "runner",
        lambda chain, assignment, suspect: cast("Traverser", WorkingTraverser(assignment.request_id)),
        max_chains=10,
    )
    service = JobRunnerService(chains)
    for request_id in ("a", "b", "c"):
        await chains.start_new(a_chain(request_id, 1), 1)

    async def jobs(*request_ids: str, only: str = "") -> set[str]:
        request = RunningJobsRequest(filter=StatusFilter(request_id=only), request_ids=request_ids)
        return {job.request_id for job in (await service.RunningJobs(request, CallContext())).jobs}

    assert await jobs() == {"a", "b", "c"}
    assert await jobs("a", "c", "not held") == {"a", "c"}
    assert await jobs("not held") == set()
    assert await jobs(only="b") == {"b"}
    with pytest.raises(NotFoundError):
        await jobs(only="not held")
