"""Where the output of a try is, and pieces of it, on each database."""

from __future__ import annotations

import pytest

from spincycle_grpc.errors import NotFoundError
from spincycle_grpc.output import OutputCut, cut_output
from spincycle_grpc.state import State
from spincycle_grpc.v1.output_pb2 import OUTPUT_STREAM_STDERR, OUTPUT_STREAM_STDOUT
from spincycle_server.store import Store
from spincycle_server.store.outputs import TryKey
from tests.store.samples import RUNNER, a_log_entry, a_report, create

UNKNOWN = "00000000000000000000"


async def test_a_running_try_is_on_the_runner_of_the_newest_assignment(store: Store) -> None:
    made = await create(store)
    place = await store.place_of_try(made.id, "bbbb", 1)
    assert (place.state, place.epoch, place.runner_id) == (State.RUNNING, 1, RUNNER.runner_id)
    assert place.finished is None


async def test_a_request_without_assignment_has_no_runner(store: Store) -> None:
    made = await create(store, None)
    place = await store.place_of_try(made.id, "bbbb", 0)
    assert (place.state, place.epoch, place.runner_id) == (State.PENDING, 0, "")


async def test_a_finished_try_has_its_end_and_sizes_in_bytes(store: Store) -> None:
    made = await create(store)
    entry = a_log_entry(made.id, number=2, stdout="größe", error="no", exit=3, state=State.FAIL.value)
    await store.apply_reports(RUNNER.runner_id, [a_report(made.id, a_log_entry(made.id), entry)])
    finished = (await store.place_of_try(made.id, "bbbb", 0)).finished
    assert finished is not None
    assert (finished.key, finished.epoch) == (TryKey(made.id, "bbbb", 2), 1)
    assert (finished.end.state, finished.end.exit, finished.end.error) == (State.FAIL.value, 3, "no")
    assert finished.sizes == {OUTPUT_STREAM_STDOUT: 7, OUTPUT_STREAM_STDERR: 0}
    earlier = (await store.place_of_try(made.id, "bbbb", 1)).finished
    assert earlier is not None
    assert getattr(earlier.end, "try") == 1


async def test_a_cut_in_stored_output_is_found_and_pieces_are_read(store: Store) -> None:
    made = await create(store)
    text = "".join(f"{number:05}\n" for number in range(2000))
    await store.record_log(a_log_entry(made.id, stderr=cut_output(text, 1000)))
    finished = (await store.place_of_try(made.id, "bbbb", 1)).finished
    assert finished is not None
    assert finished.cuts[OUTPUT_STREAM_STDOUT] is None
    cut = finished.cuts[OUTPUT_STREAM_STDERR]
    assert cut is not None
    tail = await store.stored_piece(finished.key, OUTPUT_STREAM_STDERR, cut.position + cut.note, 10_000)
    assert tail == text.encode()[cut.position + cut.size :]
    assert await store.stored_piece(finished.key, OUTPUT_STREAM_STDERR, 3, 4) == b"00\n0"
    assert await store.stored_piece(finished.key, OUTPUT_STREAM_STDOUT, 0, 4) == b""
    assert isinstance(cut, OutputCut)


async def test_only_jobs_of_the_chain_are_known(store: Store) -> None:
    made = await create(store)
    await store.check_job(made.id, "bbbb")
    for job_id in ("zzzz", "BBBB", "", "a", 'a"b'):
        with pytest.raises(NotFoundError) as raised:
            await store.check_job(made.id, job_id)
        assert raised.value.reason == "JOB_NOT_FOUND"


async def test_a_try_with_a_number_that_no_database_can_store_has_not_ended(store: Store) -> None:
    made = await create(store)
    assert (await store.place_of_try(made.id, "bbbb", 2**64 - 1)).finished is None


async def test_an_unknown_request_or_entry_is_not_found(store: Store) -> None:
    with pytest.raises(NotFoundError) as raised:
        await store.place_of_try(UNKNOWN, "bbbb", 1)
    assert raised.value.reason == "REQUEST_NOT_FOUND"
    with pytest.raises(NotFoundError):
        await store.stored_piece(TryKey(UNKNOWN, "bbbb", 1), OUTPUT_STREAM_STDOUT, 0, 1)
