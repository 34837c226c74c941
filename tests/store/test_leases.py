"""The leases of runners, on each database and with failing commits."""

from __future__ import annotations

import pytest

from spincycle_grpc.errors import FailedPreconditionError
from spincycle_grpc.state import State
from spincycle_grpc.v1.runner_reports_pb2 import Assignment, RunnerInfo
from spincycle_server.capabilities import KNOWS_ALL, KNOWS_NOTHING, Capabilities
from spincycle_server.store import Store, leases
from spincycle_server.store.leases import StoredRunner
from spincycle_server.store.lookups import Assigned
from tests.store.samples import OTHER_RUNNER, RUNNER, create, live_now, lost_assignments

UNKNOWN = "9vb2d3q0c7k5r1n8m4tg"


async def state_of(store: Store, request_id: str) -> State:
    return State((await store.get_request(request_id, with_job_chain=False)).state)


class TestRunners:
    async def test_a_runner_lives_as_long_as_its_lease(self, store: Store) -> None:
        await store.renew_runner(RUNNER, 60, draining=False)
        await store.renew_runner(OTHER_RUNNER, 60, draining=True)
        live = sorted(await live_now(store), key=lambda one: one[0].runner_id)
        assert live == [(RUNNER, False), (OTHER_RUNNER, True)]
        await store.renew_runner(RUNNER, 0, draining=False)
        await store.remove_runner("r2")
        assert await live_now(store) == []

    async def test_a_new_runner_replaces_an_old_one_at_its_address(self, store: Store) -> None:
        await store.renew_runner(RUNNER, 60, draining=False)
        after = type(RUNNER)(runner_id="r9", url=RUNNER.url, grpc_address=RUNNER.grpc_address)
        await store.renew_runner(after, 61, draining=False)
        assert await live_now(store) == [(after, False)]
        # The one before is not taken for dead yet: only an answer at the address proves that it is gone.
        lost = await create(store, RUNNER)
        assert await lost_assignments(store) == []
        await store.remove_runner("r1")
        assert await lost_assignments(store) == [Assignment(request_id=lost.id, epoch=1)]

    async def test_runners_with_the_id_or_the_address_of_a_runner_are_found(self, store: Store) -> None:
        at_address = RunnerInfo(runner_id="r9", url="http://b:1", grpc_address=RUNNER.grpc_address)
        with_id = RunnerInfo(runner_id="r1", url="http://c:1", grpc_address="c:2")
        await store.renew_runner(with_id, 60, draining=True)
        await store.renew_runner(at_address, 0, draining=False)
        await store.renew_runner(OTHER_RUNNER, 60, draining=False)
        found = sorted(await store.runners_like(RUNNER), key=lambda one: one.runner.runner_id)
        assert found == [StoredRunner(with_id, is_live=True), StoredRunner(at_address, is_live=False)]

    async def test_an_old_stream_of_a_runner_cannot_renew_its_lease(self, store: Store) -> None:
        old = await store.renew_runner(RUNNER, 60, draining=False)
        newer = await store.renew_runner(RUNNER, 60, draining=False, token=old)
        for token in (old, newer - 1):
            with pytest.raises(FailedPreconditionError) as raised:
                await store.renew_runner(RUNNER, 0, draining=False, token=token)
            assert raised.value.reason == "STREAM_SUPERSEDED"
        assert await live_now(store) == [(RUNNER, False)]
        first = await store.renew_runner(RUNNER, 60, draining=False)
        with pytest.raises(FailedPreconditionError):
            await store.renew_runner(RUNNER, 60, draining=False, token=newer)
        await store.renew_runner(RUNNER, 60, draining=False, token=first)

    async def test_a_request_is_taken_from_a_live_runner_only_with_its_newest_token(
        self, store: Store
    ) -> None:
        made = await create(store, RUNNER)
        old = await store.renew_runner(RUNNER, 60, draining=False)
        await store.renew_runner(OTHER_RUNNER, 60, draining=False)
        newest = await store.renew_runner(RUNNER, 60, draining=False)

        async def take(token: int | None) -> Assignment | None:
            return await store.assign(
                made.id, OTHER_RUNNER, expected_state=State.RUNNING, expected_epoch=1, token=token
            )

        assert await take(None) is None
        assert await take(old) is None
        assert await take(newest) == Assignment(request_id=made.id, epoch=2)

    async def test_a_request_is_not_taken_over_from_a_runner_whose_lease_was_renewed(
        self, store: Store
    ) -> None:
        made = await create(store, RUNNER)
        assert await lost_assignments(store) == [Assignment(request_id=made.id, epoch=1)]
        await store.renew_runner(RUNNER, 60, draining=False)
        taken = await store.assign(made.id, OTHER_RUNNER, expected_state=State.RUNNING, expected_epoch=1)
        assert taken is None

    async def test_requests_of_runners_without_a_lease_are_lost(self, store: Store) -> None:
        await store.renew_runner(RUNNER, 60, draining=False)
        kept, lost = await create(store), await create(store, OTHER_RUNNER)
        assert await lost_assignments(store) == [Assignment(request_id=lost.id, epoch=1)]
        assert await store.assigned_to("r1") == {kept.id: Assigned(1, False, False, False, False)}
        await store.finish(lost.id, State.FAIL, 1, 0)
        assert await lost_assignments(store) == []


class TestCapabilities:
    async def test_a_runner_has_what_it_said_last(self, store: Store) -> None:
        first, second = Capabilities(frozenset("a")), Capabilities(frozenset("ab"), frozenset({("z", "1")}))
        token = await store.renew_runner(RUNNER, 60, draining=False, capabilities=first)
        assert [one.capabilities for one in await store.live_runners()] == [first]
        token = await store.renew_runner(RUNNER, 60, draining=False, token=token, capabilities=second)
        # A renewal that says that nothing has changed does not write it.
        await store.renew_runner(
            RUNNER, 60, draining=False, token=token, capabilities=KNOWS_ALL, has_changed=False
        )
        assert [one.capabilities for one in await store.live_runners()] == [second]

    async def test_a_runner_that_says_nothing_knows_all(self, store: Store) -> None:
        await store.renew_runner(RUNNER, 60, draining=False)
        assert [one.capabilities for one in await store.live_runners()] == [KNOWS_ALL]

    async def test_a_new_row_has_the_capabilities_even_if_they_have_not_changed(self, store: Store) -> None:
        known = Capabilities(frozenset("a"))
        await store.renew_runner(RUNNER, 60, draining=False, capabilities=known, has_changed=False)
        assert [one.capabilities for one in await store.live_runners()] == [known]

    async def test_a_runner_that_changes_between_two_reads_knows_nothing(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await store.renew_runner(RUNNER, 60, draining=False, capabilities=Capabilities(frozenset("a")))
        monkeypatch.setattr(leases, "_read_capabilities", lambda *_: {})
        assert [one.capabilities for one in await store.live_runners()] == [KNOWS_NOTHING]
        monkeypatch.undo()
        store._capabilities = {}
        assert [one.capabilities.types for one in await store.live_runners()] == [frozenset("a")]

    async def test_equal_capabilities_are_read_once(self, store: Store) -> None:
        known = Capabilities(frozenset("a"))
        for runner in (RUNNER, OTHER_RUNNER):
            await store.renew_runner(runner, 60, draining=False, capabilities=known)
        live = await store.live_runners()
        assert [one.capabilities for one in live] == [known, known]
        assert [one.capabilities for one in await store.live_runners()] == [known, known]
        assert set(store._capabilities) == {known.capabilities_id}
