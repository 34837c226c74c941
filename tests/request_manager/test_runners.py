"""Which of the live runners a Request Manager uses."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import structlog

from spincycle_grpc.state import State
from spincycle_grpc.v1.runner_reports_pb2 import RunnerInfo
from spincycle_grpc.v1.status_pb2 import JobStatus, StatusFilter
from spincycle_server.capabilities import KNOWS_ALL, NEEDS_NOTHING, Capabilities, Requirement
from spincycle_server.identity.cluster import KEY_HEADER
from spincycle_server.request_manager import full_runners as full_runners_module
from spincycle_server.request_manager import runners as runners_module
from spincycle_server.request_manager.full_runners import PROBE
from spincycle_server.request_manager.runner_calls import RunnerCalls
from spincycle_server.request_manager.runners import DENIED_PAUSE, Runners
from spincycle_server.store import Store
from spincycle_server.store.leases import LiveRunner
from tests.request_manager.doubles import Clock
from tests.store.samples import OTHER_RUNNER, RUNNER

REMOTE = RunnerInfo(runner_id="r3", url="http://10.255.255.1:1", grpc_address="10.255.255.1:2")


def with_key() -> tuple[tuple[str, str], ...]:
    return ((KEY_HEADER, "k" * 40),)


async def test_a_server_whose_key_nobody_else_knows_uses_only_runners_that_report_to_it(store: Store) -> None:
    runners = Runners(store, call_metadata=with_key, only_own=True)
    await store.renew_runner(OTHER_RUNNER, 60, draining=False)
    await runners.refresh()
    assert (runners.any_free(), runners.pick()) == (False, None)
    runners.add(OTHER_RUNNER)
    await runners.refresh()
    assert runners.pick() == OTHER_RUNNER
    assert runners.get(RUNNER.runner_id) is None
    await runners.close()


async def test_other_servers_use_every_live_runner(store: Store) -> None:
    runners = Runners(store, call_metadata=with_key)
    await store.renew_runner(OTHER_RUNNER, 60, draining=False)
    await runners.refresh()
    assert {runners.pick().runner_id for _ in range(4)} == {"r1", "r2"}  # type: ignore[union-attr]
    await runners.close()


async def test_a_runner_that_needs_tls_is_not_used_and_the_log_says_so_once(store: Store) -> None:
    runners = Runners(store, call_metadata=with_key)
    await store.renew_runner(REMOTE, 60, draining=False)
    with structlog.testing.capture_logs() as logs:
        await runners.refresh()
        await runners.refresh()
    assert runners.get("r3") is None
    warned = [entry for entry in logs if entry["event"] == "runner is not used"]
    assert [entry["runner_id"] for entry in warned] == ["r3"]
    assert "jr_client.tls" in warned[0]["error"]
    await runners.close()


async def test_a_runner_that_denied_a_call_gets_chains_again_after_a_pause(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(runners_module, "time", clock)
    runners = Runners(store)
    await runners.refresh()
    runners.mark_denied("r1")
    clock.now += DENIED_PAUSE - 0.1
    await runners.refresh()
    assert (runners.any_free(), runners.pick()) == (False, None)
    clock.now += 0.2
    assert (runners.any_free(), runners.pick()) == (True, RUNNER)
    await runners.close()


async def test_only_full_runners_that_report_to_others_are_asked_for_places(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, int]] = []
    runners = Runners(store)
    monkeypatch.setattr(
        runners._capacity,
        "want",
        lambda demands: asked.append({runner_id: one.places for runner_id, one in demands.items()}),
    )

    def want(waiting: int) -> dict[str, int]:
        runners.want_places(lambda _: waiting)
        return asked.pop()

    runners.add(RUNNER)
    runners.add(OTHER_RUNNER)
    assert want(5) == {}
    runners.mark_full("r1")
    runners.mark_full("r2")
    assert want(5) == {"r1": 5, "r2": 5}
    assert want(0) == {}
    runners.add_places("r1", 2)
    assert want(5) == {"r1": 3, "r2": 5}
    runners.reports_here = "r2".__eq__
    assert want(5) == {"r1": 3}
    runners.reports_here = lambda _: False
    runners.drain("r1")
    assert want(5) == {"r2": 5}
    runners.mark_denied("r2")
    assert want(5) == {}
    await runners.close()


async def test_a_full_runner_is_not_probed_while_it_offers_its_places(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(full_runners_module, "time", clock)
    runners = Runners(store)
    runners.add(RUNNER)

    def probed() -> bool:
        runners.mark_full("r1")
        clock.now += 10 * PROBE
        return runners.have_room(NEEDS_NOTHING) and runners.pick() == RUNNER

    assert probed()
    runners.reports_here = "r1".__eq__
    runners.others_want("r1", 3)
    assert not probed()
    runners.add_places("r1", 1)
    assert runners.pick() == RUNNER
    runners.others_want("r1", 0)
    assert probed()
    runners.others_want("r1", 3)
    runners.reports_here = lambda _: False  # What its reports have said no longer counts.
    assert probed()
    monkeypatch.setattr(runners, "_capacity", {"r1"})
    assert not probed()
    monkeypatch.undo()
    await runners.close()


async def test_an_offered_place_is_used_and_wakes_those_who_wait(store: Store) -> None:
    runners = Runners(store)
    woken: list[None] = []
    runners.on_place = lambda: woken.append(None)
    runners.add(RUNNER)
    runners._offered("r1", 1)
    assert not woken, "the runner is not full"
    runners.mark_full("r1")
    assert runners.pick() is None
    runners._offered("r1", 1)
    assert (len(woken), runners.pick(), runners.pick()) == (1, RUNNER, None)
    await runners.close()


AB, AX, IN_A = (
    Requirement(frozenset("ab")),
    Requirement(frozenset("ax")),
    Requirement(frozenset("a"), frozenset({("zone", "a")})),
)


async def test_only_a_runner_that_has_what_a_request_needs_is_picked(store: Store) -> None:
    runners = Runners(store)
    runners.add(RUNNER, Capabilities(frozenset("ab")))
    runners.add(OTHER_RUNNER, Capabilities(frozenset("ax"), IN_A.labels))
    for requirement, runner in ((AB, RUNNER), (AX, OTHER_RUNNER), (IN_A, OTHER_RUNNER)):
        assert [runners.pick(requirement) for _ in range(3)] == [runner] * 3
    assert {runners.pick().runner_id for _ in range(4)} == {"r1", "r2"}  # type: ignore[union-attr]
    runners.mark_full(OTHER_RUNNER.runner_id)
    assert (runners.pick(AX), runners.any_free(AX), runners.is_blocked(AX)) == (None, False, False)
    await runners.close()


async def test_a_request_is_blocked_if_there_are_runners_but_none_that_can_run_it(store: Store) -> None:
    runners = Runners(store)
    assert not runners.is_blocked(AB)
    assert runners.why_waiting(State.PENDING, AB, "") == ""
    runners.add(RUNNER, Capabilities(frozenset()))  # It has not answered yet which types it knows.
    assert runners.is_blocked(AB)
    assert runners.why_waiting(State.PENDING, AB, "") == ""
    runners.add(RUNNER, Capabilities(frozenset("a")))
    assert runners.is_blocked(AB)
    assert runners.why_waiting(State.PENDING, AB, "") == "no job runner knows the job type b"
    runners.add(OTHER_RUNNER, KNOWS_ALL)
    assert not runners.is_blocked(AB)
    assert runners.why_waiting(State.PENDING, AB, "") == ""
    runners.drain(OTHER_RUNNER.runner_id)
    assert runners.is_blocked(AB)
    runners.remove(OTHER_RUNNER.runner_id)
    runners.drain(RUNNER.runner_id)
    assert not runners.is_blocked(AB)
    await runners.close()


async def test_a_running_request_waits_only_if_its_runner_is_lost(store: Store) -> None:
    runners = Runners(store)
    runners.add(RUNNER, Capabilities(frozenset("a")))
    assert runners.why_waiting(State.RUNNING, AB, "r9") == ""
    runners.mark_lost(frozenset({"r9"}))
    assert runners.why_waiting(State.RUNNING, AB, "r9") == "no job runner knows the job type b"
    assert runners.why_waiting(State.RUNNING, AB, RUNNER.runner_id) == ""
    await runners.close()


async def test_a_refresh_reads_what_runners_have_told_other_request_managers(store: Store) -> None:
    runners = Runners(store)
    assert await runners.refresh()
    assert runners.pick(AB) == RUNNER
    await store.renew_runner(RUNNER, 60, draining=False, capabilities=Capabilities(frozenset("a")))
    assert await runners.refresh()
    assert runners.pick(AB) is None
    assert not await runners.refresh()
    await runners.close()


async def test_a_runner_that_reports_here_is_known_while_others_are_read(store: Store) -> None:
    runners = Runners(store)
    await store.renew_runner(RUNNER, 60, draining=False, capabilities=Capabilities(frozenset("a")))
    read = store.live_runners

    async def late() -> Sequence[LiveRunner]:
        answer = await read()
        runners.add(RUNNER, Capabilities(frozenset("ab")))
        return answer

    store.live_runners = late  # type: ignore[method-assign, assignment]
    await runners.refresh()
    assert runners.pick(AB) == RUNNER
    await runners.close()


async def test_only_the_runners_of_watched_requests_are_asked_for_their_jobs(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, Sequence[str]]] = []

    async def running_jobs(
        calls: object, runner: RunnerInfo, status_filter: StatusFilter, request_ids: Sequence[str]
    ) -> list[JobStatus]:
        asked.append((runner.runner_id, request_ids))
        return [JobStatus(job_id="late", started_at=2), JobStatus(job_id="early", started_at=1)]

    monkeypatch.setattr(RunnerCalls, "running_jobs", running_jobs)
    runners = Runners(store, call_metadata=with_key)
    await store.renew_runner(RUNNER, 60, draining=False)
    await store.renew_runner(OTHER_RUNNER, 60, draining=False)
    await runners.refresh()
    jobs = await runners.jobs_of_requests(["one", "two"], {RUNNER.url, "http://unknown:1"})
    assert [job.job_id for job in jobs] == ["early", "late"]
    assert asked == [(RUNNER.runner_id, ["one", "two"])]
    await runners.close()
