"""Pages of job chains: joined, they are the chain."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from spincycle_grpc.v1.job_pb2 import Job, JobChain, JobIds
from spincycle_grpc.v1.state_pb2 import STATE_PENDING
from spincycle_server.request_manager.job_chain_pages import job_chain_page


@st.composite
def chains(draw: st.DrawFn) -> JobChain:
    """Chains of jobs of all sizes, with edges between some of them."""
    ids = draw(st.lists(st.text("0Aaz", min_size=1, max_size=4), unique=True, max_size=20))
    chain = JobChain(request_id="r", state=STATE_PENDING, finished_jobs=3, timeout="1h")
    for job_id in ids:
        chain.jobs[job_id].CopyFrom(Job(id=job_id, bytes=b"x" * draw(st.sampled_from([0, 5, 300]))))
        if draw(st.booleans()):
            chain.path_labels[job_id] = draw(st.sampled_from(["x", "host 😀" * 10]))
        followers = draw(st.lists(st.sampled_from(ids), max_size=5))
        if followers:
            chain.adjacency_list[job_id].CopyFrom(JobIds(ids=followers))
    return chain


@given(chains(), st.integers(0, 25), st.sampled_from([1, 200, 700, 10**6]))
def test_joined_pages_are_the_chain(chain: JobChain, page_size: int, max_bytes: int) -> None:
    whole = JobChain()
    behind = ""
    while True:
        page = job_chain_page(chain, behind, page_size, max_bytes)
        part = page.job_chain
        whole.MergeFrom(part)
        assert len(part.jobs) <= (page_size or len(chain.jobs))
        assert set(part.adjacency_list) <= set(part.jobs)
        assert set(part.path_labels) <= set(part.jobs)
        assert (part.request_id, part.timeout) == ("r", "1h")
        if len(part.jobs) > 1:
            assert part.ByteSize() <= max_bytes + 100  # The other fields of the chain.
        assert page.whole_bytes == chain.ByteSize()
        if not page.last:
            break
        assert page.last == max(part.jobs) > behind
        behind = page.last
    assert whole == chain


def test_a_chain_that_fits_is_not_copied() -> None:
    chain = JobChain(request_id="r", jobs={"a": Job(id="a")})
    assert job_chain_page(chain, "", 0).job_chain is chain
