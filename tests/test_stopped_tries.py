"""Conversions of suspended chains between the counting of an original and that of this project's servers."""

from __future__ import annotations

from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.job_pb2 import Job, SuspendedJobChain
from spincycle_server.stopped_tries import remove_stopped_tries, with_stopped_tries

PENDING, STOPPED = state_pb2.STATE_PENDING, state_pb2.STATE_STOPPED


def a_suspended(
    states: dict[str, state_pb2.State.ValueType], tries: dict[str, int], *stopped: str
) -> SuspendedJobChain:
    suspended = SuspendedJobChain(latest_run_job_tries=tries, stopped_jobs=stopped)
    for job_id, state in states.items():
        suspended.job_chain.jobs[job_id].CopyFrom(Job(id=job_id, state=state))
    return suspended


def counted(suspended: SuspendedJobChain) -> dict[str, tuple[int, int]]:
    """Returns the state and the number of tries of each job."""
    tries = suspended.latest_run_job_tries
    return {job_id: (job.state, tries.get(job_id, 0)) for job_id, job in suspended.job_chain.jobs.items()}


def test_a_stored_chain_counts_the_stopped_tries_and_says_which() -> None:
    sent = a_suspended(
        {"aaaa": state_pb2.STATE_COMPLETE, "bbbb": PENDING, "cccc": PENDING, "dddd": PENDING},
        {"aaaa": 1, "cccc": 1, "dddd": 1},
        "bbbb",
        "cccc",
    )
    stored = with_stopped_tries(sent)
    assert counted(stored) == {
        "aaaa": (state_pb2.STATE_COMPLETE, 1),
        "bbbb": (STOPPED, 1),
        "cccc": (STOPPED, 2),
        "dddd": (PENDING, 1),  # between two tries
    }
    remove_stopped_tries(stored, by_original=False)
    assert counted(stored) == counted(sent)


def test_the_conversion_does_not_change_the_report_and_can_be_repeated() -> None:
    sent = a_suspended({"bbbb": PENDING}, {}, "bbbb")
    assert with_stopped_tries(sent) == with_stopped_tries(sent)
    assert counted(sent) == {"bbbb": (PENDING, 0)}


def test_every_stopped_try_of_an_original_is_subtracted() -> None:
    stored = a_suspended(
        {"bbbb": STOPPED, "cccc": STOPPED, "dddd": PENDING}, {"bbbb": 1, "cccc": 3, "dddd": 1}
    )
    remove_stopped_tries(stored, by_original=True)
    assert counted(stored) == {"bbbb": (PENDING, 0), "cccc": (PENDING, 2), "dddd": (PENDING, 1)}


def test_a_count_of_zero_stays_zero() -> None:
    stored = a_suspended({"bbbb": STOPPED}, {})
    remove_stopped_tries(stored, by_original=True)
    assert counted(stored) == {"bbbb": (PENDING, 0)}


def test_a_chain_of_an_earlier_version_did_not_count_stopped_tries() -> None:
    from_runner = a_suspended({"bbbb": STOPPED, "cccc": STOPPED}, {"cccc": 1})
    stored = with_stopped_tries(from_runner)
    assert counted(stored) == {"bbbb": (PENDING, 0), "cccc": (PENDING, 1)}
    in_row = a_suspended({"bbbb": STOPPED, "cccc": STOPPED}, {"cccc": 1})
    remove_stopped_tries(in_row, by_original=False)
    assert counted(in_row) == counted(stored)


def test_ids_that_are_not_in_the_chain_change_nothing() -> None:
    stored = with_stopped_tries(a_suspended({"bbbb": PENDING}, {}, "zzzz"))
    assert counted(stored) == {"bbbb": (PENDING, 0)}
    assert not stored.latest_run_job_tries
