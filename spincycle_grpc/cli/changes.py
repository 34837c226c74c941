"""What the messages of a watch say, as lines for people."""

from __future__ import annotations

from collections.abc import Iterator

from spincycle_grpc.cli.counts import try_name, try_of
from spincycle_grpc.cli.cutting import cut_text
from spincycle_grpc.cli.following import state_line
from spincycle_grpc.cli.job_paths import is_connector
from spincycle_grpc.cli.output import paint, plain_line, printable, state_name
from spincycle_grpc.cli.times import span_text
from spincycle_grpc.v1.job_log_pb2 import JobLog
from spincycle_grpc.v1.request_manager_pb2 import WatchResponse
from spincycle_grpc.v1.request_pb2 import Request
from spincycle_grpc.v1.status_pb2 import JobStatus
from spincycle_grpc.waiting import is_final

_LONGEST_ERROR = 200


class ChangeLines:
    """Turns messages into lines: one for each finished try, each job that starts, and each new state.

    Args:
        has_ids: Whether the lines of jobs name the request, because several are watched.
        is_with_bar: Whether a progress bar shows the running jobs and the number of finished jobs.
    """

    def __init__(self, *, has_ids: bool = False, is_with_bar: bool = False) -> None:
        self._has_ids = has_ids
        self._is_with_bar = is_with_bar
        self._states: dict[str, str] = {}
        self._running: dict[str, set[tuple[str, int]]] = {}

    def of(self, message: WatchResponse) -> Iterator[str]:
        """Yields the lines of a message. The last line of a request is its final state."""
        if message.HasField("reset"):
            yield printable(message.reset.message)
            self._states.clear()
        yield from self._state_lines(request for request in message.requests if not is_final(request))
        for entry in message.tries:
            if is_connector(entry):
                continue
            yield f"  {self._id(entry.request_id)}{_try_text(entry)}"
        for snapshot in message.running:
            yield from self._starts(snapshot.request_id, list(snapshot.jobs))
        yield from self._state_lines(request for request in message.requests if is_final(request))
        for request_id in message.gone:
            self._states.pop(request_id, None)
            yield f"{printable(request_id)}: deleted"

    def _state_lines(self, requests: Iterator[Request]) -> Iterator[str]:
        for request in requests:
            line = state_line(request)
            seen = state_name(request.state) if self._is_with_bar else line
            if self._states.get(request.id) != seen:
                yield line
            self._states[request.id] = seen
            if is_final(request):
                self._states.pop(request.id)
                self._running.pop(request.id, None)

    def _starts(self, request_id: str, jobs: list[JobStatus]) -> Iterator[str]:
        known = self._running.get(request_id, set())
        self._running[request_id] = {(job.job_id, try_of(job)) for job in jobs}
        if not jobs:
            del self._running[request_id]
        for job in () if self._is_with_bar else jobs:
            if (job.job_id, try_of(job)) not in known and not is_connector(job):
                yield f"  {self._id(request_id)}{paint('RUNNING')} {try_name(job)}"

    def _id(self, request_id: str) -> str:
        return f"{printable(request_id)} " if self._has_ids else ""


def _try_text(entry: JobLog) -> str:
    took = f" in {span_text(entry.finished_at - entry.started_at)}" if entry.started_at else ""
    code = f", exit {entry.exit}" if entry.exit else ""
    reason = f": {cut_text(plain_line(entry.error), _LONGEST_ERROR)}" if entry.error else ""
    return f"{paint(state_name(entry.state))} {try_name(entry)}{took}{code}{reason}"
