"""How suspended chains count the tries that were stopped when they were suspended.

A stopped try does not count against the retries of its job. An original Spin Cycle counts it nevertheless in
`latestRunJobTries`, sets the job STOPPED, and subtracts one for each STOPPED job when it resumes the chain.
If the number is 0 then, its Job Runner panics.

So chains are stored as an original stores them, and an original can resume them. Between the servers of this
project, such jobs are PENDING and the try is not counted: all versions read this in the same way. The field
`stopped_jobs` names the jobs. Earlier versions set them STOPPED, did not count the try, and knew no such
field.
"""

from __future__ import annotations

from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.job_pb2 import SuspendedJobChain


def with_stopped_tries(suspended: SuspendedJobChain) -> SuspendedJobChain:
    """Returns the chain to store for a chain that a runner of this project has suspended."""
    stored = SuspendedJobChain()
    stored.CopyFrom(suspended)
    jobs, tries = stored.job_chain.jobs, stored.latest_run_job_tries
    listed = set(stored.stopped_jobs)
    for job_id, job in jobs.items():
        if job.state == state_pb2.STATE_STOPPED:
            job.state = state_pb2.STATE_PENDING
        if job_id in listed and job.state == state_pb2.STATE_PENDING:
            job.state = state_pb2.STATE_STOPPED
            tries[job_id] += 1
    return stored


def remove_stopped_tries(suspended: SuspendedJobChain, *, by_original: bool) -> None:
    """Changes a stored chain to the chain that is sent to runners of this project.

    Args:
        suspended: The chain.
        by_original: Whether an original suspended it.
    """
    jobs, tries = suspended.job_chain.jobs, suspended.latest_run_job_tries
    listed = set(suspended.stopped_jobs)
    for job_id, job in jobs.items():
        if job.state != state_pb2.STATE_STOPPED:
            continue
        job.state = state_pb2.STATE_PENDING
        if (by_original or job_id in listed) and tries.get(job_id, 0):
            tries[job_id] -= 1
