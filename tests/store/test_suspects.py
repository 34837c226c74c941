"""Suspects in the store: which requests are, and which deaths of runners count as their crashes."""

from __future__ import annotations

from spincycle_grpc.state import State
from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.job_log_pb2 import JobLog
from spincycle_grpc.v1.job_pb2 import SuspendedJobChain
from spincycle_grpc.v1.runner_reports_pb2 import Assignment, ChainReport, RunnerInfo, StartedTry
from spincycle_server.config.values import MAX_CRASHES
from spincycle_server.store import Store, StoredSuspect
from tests.store.samples import RUNNER, a_chain, a_log_entry, a_report, create


def runner(number: int) -> RunnerInfo:
    return RunnerInfo(runner_id=f"r{number}", url=f"http://a:{number}", grpc_address=f"a:{number}")


async def take_over(store: Store, request_id: str, epoch: int, to: RunnerInfo) -> None:
    """Ends the lease of the runner before, and assigns the request to another one."""
    await store.renew_runner(to, 60, draining=False)
    assigned = await store.assign(request_id, to, expected_state=State.RUNNING, expected_epoch=epoch - 1)
    assert assigned == Assignment(request_id=request_id, epoch=epoch)


def a_start(request_id: str, epoch: int, job_id: str = "bbbb", *, shared: bool = False) -> ChainReport:
    """Returns the report of a try that is about to start."""
    started = StartedTry(job_id=job_id, shared=shared, **{"try": 1})
    return ChainReport(assignment=Assignment(request_id=request_id, epoch=epoch), started=[started])


async def crash(store: Store, request_id: str, epoch: int, *, after: ChainReport | None = None) -> None:
    """Lets the runner of an epoch record a start, and die. The next runner takes over."""
    holder = runner(epoch)
    assert await store.apply_reports(holder.runner_id, [after or a_start(request_id, epoch)]) == []
    await store.remove_runner(holder.runner_id)
    await take_over(store, request_id, epoch + 1, runner(epoch + 1))


async def suspect_of(store: Store, request_id: str) -> StoredSuspect | None:
    return (await store.get_record(request_id)).suspect


async def a_suspect(store: Store) -> str:
    """Returns the id of a request that runner 2 has taken over from a dead runner."""
    request = await create(store, RUNNER)
    assert await suspect_of(store, request.id) is None
    await take_over(store, request.id, 2, runner(2))
    return request.id


async def test_a_request_whose_runner_died_is_a_suspect_without_a_crash(store: Store) -> None:
    request_id = await a_suspect(store)
    assert await suspect_of(store, request_id) == StoredSuspect([], "", is_alone=False)


async def test_only_deaths_during_a_recorded_try_count(store: Store) -> None:
    request_id = await a_suspect(store)
    await store.remove_runner("r2")
    await take_over(store, request_id, 3, runner(3))
    assert await suspect_of(store, request_id) == StoredSuspect([], "", is_alone=False)
    await crash(store, request_id, 3)
    await crash(store, request_id, 4)
    assert await suspect_of(store, request_id) == StoredSuspect(["r3", "r4"], "bbbb", is_alone=False)


async def test_enough_crashes_are_kept_for_the_highest_limit(store: Store) -> None:
    request_id = await a_suspect(store)
    for epoch in range(2, MAX_CRASHES + 5):
        await crash(store, request_id, epoch)
    suspect = await suspect_of(store, request_id)
    assert suspect is not None
    assert len(suspect.crashed_runners) == MAX_CRASHES + 1
    assert suspect.crashed_runners[-1] == f"r{MAX_CRASHES + 4}"


async def test_a_repeated_report_of_a_start_is_one_start(store: Store) -> None:
    request_id = await a_suspect(store)
    await store.apply_reports("r2", [a_start(request_id, 2)])
    await crash(store, request_id, 2)
    assert await suspect_of(store, request_id) == StoredSuspect(["r2"], "bbbb", is_alone=False)
    ended = a_report(request_id, a_log_entry(request_id), epoch=3)
    ended.started.extend(a_start(request_id, 3).started)
    await crash(store, request_id, 3, after=ended)
    assert await suspect_of(store, request_id) == StoredSuspect([], "", is_alone=False)


async def test_a_finished_try_resets_the_crashes_and_a_stopped_try_does_not(store: Store) -> None:
    for state, kept in (
        (state_pb2.STATE_COMPLETE, []),
        (state_pb2.STATE_FAIL, []),
        (state_pb2.STATE_STOPPED, ["r2"]),
    ):
        request_id = await a_suspect(store)
        await crash(store, request_id, 2)
        await store.apply_reports("r3", [a_start(request_id, 3)])
        entry: JobLog = a_log_entry(request_id, state=state)
        await store.apply_reports("r3", [a_report(request_id, entry, epoch=3)])
        suspect = await suspect_of(store, request_id)
        assert suspect is not None
        assert suspect.crashed_runners == kept
        await store.remove_runner("r3")


async def test_a_death_while_several_suspects_ran_blames_none_and_makes_them_run_alone(store: Store) -> None:
    one, other = await a_suspect(store), await a_suspect(store)
    await store.apply_reports("r2", [a_start(one, 2)])
    await store.apply_reports("r2", [a_start(other, 2, shared=True)])
    await store.remove_runner("r2")
    for request_id in (one, other):
        await take_over(store, request_id, 3, runner(3))
        assert await suspect_of(store, request_id) == StoredSuspect([], "", is_alone=True)
    await crash(store, one, 3)
    assert await suspect_of(store, one) == StoredSuspect(["r3"], "bbbb", is_alone=True)
    await take_over(store, other, 4, runner(4))
    assert await suspect_of(store, other) == StoredSuspect([], "", is_alone=True)


async def test_crashes_of_a_runner_that_comes_back_are_taken_back(store: Store) -> None:
    request_id = await a_suspect(store)
    await store.apply_reports("r2", [a_start(request_id, 2)])
    await store.renew_runner(runner(2), 0, draining=False)
    await take_over(store, request_id, 3, runner(3))
    await crash(store, request_id, 3)
    before = await suspect_of(store, request_id)
    assert before is not None
    assert before.crashed_runners == ["r2", "r3"]
    await store.renew_runner(runner(2), 60, draining=False)
    after = await suspect_of(store, request_id)
    assert after is not None
    assert after.crashed_runners == ["r3"]


async def test_a_chain_that_its_living_runner_does_not_have_is_no_suspect(store: Store) -> None:
    request = await create(store, RUNNER)
    token = await store.renew_runner(RUNNER, 60, draining=False)
    assert await store.assign(
        request.id, runner(2), expected_state=State.RUNNING, expected_epoch=1, token=token
    )
    assert await suspect_of(store, request.id) is None


async def test_cleared_suspended_and_ended_requests_are_suspects_no_more(store: Store) -> None:
    cleared, suspended, ended, failed = [await a_suspect(store) for _ in range(4)]
    at = {one: Assignment(request_id=one, epoch=2) for one in (cleared, suspended, failed)}
    chain = SuspendedJobChain(request_id=suspended, job_chain=a_chain(suspended))
    reports = [
        ChainReport(assignment=at[cleared], cleared=True),
        ChainReport(assignment=at[suspended], suspended=chain),
        a_report(ended, epoch=2, ends=state_pb2.STATE_COMPLETE),
    ]
    assert await store.apply_reports("r2", reports) == []
    await store.end_assignment(at[failed], State.FAIL)
    for request_id in (cleared, suspended, ended, failed):
        assert await suspect_of(store, request_id) is None
