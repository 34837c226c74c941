"""The list of runners: who is alive, what they can, and how much of what they run the caller may see."""

from __future__ import annotations

import pytest

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.state import State
from spincycle_grpc.v1 import request_manager_pb2 as messages
from spincycle_grpc.v1.runner_reports_pb2 import RunnerInfo
from spincycle_grpc.v1.status_pb2 import JobStatus
from spincycle_server.capabilities import Capabilities
from spincycle_server.identity.access import ALL_TYPES, VisibleTypes
from spincycle_server.request_ids import RequestIdGenerator
from spincycle_server.request_manager.runner_list import RunnerList
from spincycle_server.rpc import CallContext
from spincycle_server.store import Store, counting
from tests.request_manager.doubles import WillingRunners
from tests.store.samples import RUNNER, create

GRPC, HTTP = CallContext(), CallContext(transport="http")
NO_GUARDED = VisibleTypes(hidden=frozenset({"guarded"}))


async def listed(
    store: Store,
    runners: WillingRunners,
    visible: VisibleTypes = ALL_TYPES,
    context: CallContext = HTTP,
    **request: object,
) -> messages.ListRunnersResponse:
    call = messages.ListRunnersRequest(**request)  # type: ignore[arg-type]
    return await RunnerList(store, runners).list(call, context, visible)


async def test_it_shows_what_a_runner_says_of_itself(store: Store) -> None:
    runner_id = RequestIdGenerator(clock=lambda: 1_800_000_000.0).next()
    runner = RunnerInfo(runner_id=runner_id, url="http://h:2", grpc_address="h:12")
    has = Capabilities(frozenset({"nap", "drain"}), frozenset({("zone", "a")}), frozenset({"pause"}), "2.1")
    await store.renew_runner(runner, 3600, draining=True, capabilities=has)
    runners = WillingRunners(store)
    await runners.refresh()
    runners.mark_full(runner_id)
    shown = {one.id: one for one in (await listed(store, runners)).runners}
    one = shown[runner_id]
    assert (one.url, one.version) == ("http://h:2", "2.1")
    assert (one.draining, one.full, one.silent) == (True, True, True)
    assert (list(one.job_types), dict(one.labels), list(one.features)) == (
        ["drain", "nap"], {"zone": "a"}, ["pause"],
    )  # fmt: skip
    assert (one.started_at.seconds, one.knows_all_job_types) == (1_800_000_000, False)
    assert one.lease_expires_at.seconds > 1_700_000_000
    old = shown[RUNNER.runner_id]  # Of an earlier version: it says nothing, and its id is not an xid.
    assert old.knows_all_job_types
    assert not old.HasField("started_at")
    assert (old.version, old.full) == ("", False)


async def test_only_visible_requests_and_jobs_are_counted(store: Store) -> None:
    open_request = await create(store, type="nap")
    guarded = await create(store, type="guarded")
    await create(store, runner=None, type="nap")
    runners = WillingRunners(store)
    runners.answering = (RUNNER.runner_id,)
    runners.running = [JobStatus(request_id=id_) for id_ in (open_request.id, guarded.id, guarded.id)]
    [all_of_it] = (await listed(store, runners)).runners
    assert (all_of_it.running_requests, all_of_it.running_jobs, all_of_it.silent) == (2, 3, False)
    [visible] = (await listed(store, runners, NO_GUARDED)).runners
    assert (visible.running_requests, visible.running_jobs) == (1, 1)
    await store.finish(open_request.id, State.COMPLETE, 0, 3)
    [fewer] = (await listed(store, runners)).runners
    assert fewer.running_requests == 1


async def test_counting_ends_at_a_limit(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        await create(store)
    monkeypatch.setattr(counting, "MAX_COUNT", 2)
    [one] = (await listed(store, WillingRunners(store))).runners
    assert one.more_requests
    assert one.running_requests >= 2


async def test_pages_have_every_runner_once(store: Store) -> None:
    for number in range(5):
        runner = RunnerInfo(runner_id=f"p{number}", url="http://h:1", grpc_address=f"h:{number + 1}")
        await store.renew_runner(runner, 3600, draining=False)
    runners = WillingRunners(store)
    ids, token = [], ""
    while True:
        page = await listed(store, runners, context=GRPC, page_size=2, page_token=token)
        assert 1 <= len(page.runners) <= 2
        ids += [one.id for one in page.runners]
        token = page.next_page_token
        if not token:
            break
    assert ids == sorted([RUNNER.runner_id, *(f"p{number}" for number in range(5))])
    assert len((await listed(store, runners)).runners) == 6
    with pytest.raises(InvalidArgumentError) as caught:
        await listed(store, runners, page_token="x")
    assert caught.value.reason == "BAD_PAGE_TOKEN"
