"""Links the sliding windows of a chain to its jobs and sequences."""

from __future__ import annotations

from collections.abc import Mapping

from spincycle_grpc.v1.job_pb2 import EachWindow, JobChain
from spincycle_server.chain.linked_chain import ChainJob, ChainSequence
from spincycle_server.chain.windows import Element, Window


def link_windows(chain: JobChain, jobs: Mapping[str, ChainJob]) -> list[Window]:
    """Returns the windows of a chain, those within an element of another one first.

    Raises:
        ValueError: A window does not fit the chain. The message says why.
    """
    windows = [_window(key, chain.windows[key], jobs) for key in sorted(chain.windows)]
    return sorted(windows, key=lambda window: -window.sequence.depth)


def _window(key: str, message: EachWindow, jobs: Mapping[str, ChainJob]) -> Window:
    before = jobs.get(key)
    if before is None:
        raise ValueError(f"a window belongs to job {key}, which does not exist")
    if not message.max or len(message.first_job_ids) != len(message.last_job_ids):
        raise ValueError(f"the window of job {key} needs max, and as many last jobs as first jobs")
    window = Window(before.sequence, message.max, message.stop_after_failures)
    followers = set(before.children)
    for first_id, last_id in zip(message.first_job_ids, message.last_job_ids, strict=True):
        first, last = jobs.get(first_id), jobs.get(last_id)
        if first is None or last is None or first.element or last.element:
            raise ValueError(f"the window of job {key} has an element from {first_id} to {last_id}: bad ids")
        if first not in followers or first.missing != 1:
            raise ValueError(f"the window of job {key} has job {first_id}, which does not follow that job")
        _add_element(window, first, last)
    return window


def _add_element(window: Window, first: ChainJob, last: ChainJob) -> None:
    element = Element(window, len(window.elements), first, last, _sequence_of(window, first, last))
    first.element = last.element = element
    if element.sequence is not None:
        element.sequence.element = element
    window.elements.append(element)


def _sequence_of(window: Window, first: ChainJob, last: ChainJob) -> ChainSequence | None:
    """Returns the sequence in an element: that of its first job, or the only one between its two jobs."""
    if first is last:
        return None
    begins_with = first if first.id == first.sequence.id else next(iter(first.children), first)
    inner = begins_with.sequence
    if inner.parent is not window.sequence or inner.element is not None:
        raise ValueError(f"the element from {first.id} to {last.id} is not a sequence of its own")
    return inner
