"""Pages of a job chain: some of its jobs, each with its entry in the adjacency list."""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

from spincycle_grpc.v1.job_pb2 import JobChain
from spincycle_server.store.pages import PAGE_BYTES, PageRoom

JOB_BYTES = 100
"""The least bytes of a job in a chain, to tell whether the work on a chain is large."""


class JobChainPage(NamedTuple):
    """A part of a chain.

    Attributes:
        job_chain: The part.
        last: The id of its last job; "" if there are no more jobs.
        whole_bytes: The size of the whole chain.
    """

    job_chain: JobChain
    last: str
    whole_bytes: int


def job_chain_page(
    job_chain: JobChain, behind: str, page_size: int, max_bytes: int = PAGE_BYTES
) -> JobChainPage:
    """Returns a page of a chain, with the jobs sorted by id.

    Args:
        job_chain: The chain.
        behind: The id of the last job of the page before; "" for the first page.
        page_size: The maximum number of jobs; 0 for no maximum.
        max_bytes: The maximum size of the page in bytes, unless a single job is larger.
    """
    whole_bytes = job_chain.ByteSize()
    if not behind and not page_size and whole_bytes <= max_bytes:
        return JobChainPage(job_chain, "", whole_bytes)
    page = JobChain(
        request_id=job_chain.request_id,
        state=job_chain.state,
        finished_jobs=job_chain.finished_jobs,
        timeout=job_chain.timeout,
        traceparent=job_chain.traceparent,
        tracestate=job_chain.tracestate,
    )
    room = PageRoom(page_size, max_bytes)
    ids = sorted(job_chain.jobs)
    last = ""
    for job_id in ids[bisect_right(ids, behind) :]:
        job = job_chain.jobs[job_id]
        next_ids = job_chain.adjacency_list.get(job_id)
        # Each entry of a map has its key, two tags and two lengths besides the value.
        size = job.ByteSize() + 2 * (len(job_id) + 12) + (next_ids.ByteSize() if next_ids is not None else 0)
        label = job_chain.path_labels.get(job_id)
        if label:
            size += len(label.encode()) + len(job_id) + 6
        if not room.take(size):
            return JobChainPage(page, last, whole_bytes)
        page.jobs[job_id].CopyFrom(job)
        if next_ids is not None:
            page.adjacency_list[job_id].CopyFrom(next_ids)
        if label:
            page.path_labels[job_id] = label
        last = job_id
    return JobChainPage(page, "", whole_bytes)
