"""Shows a running request for `spinc start --wait`: a progress bar on a terminal, otherwise lines."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from spincycle_grpc.cli.counts import JobCounts, failed_entries, try_of
from spincycle_grpc.cli.output import DUMB_TERMINALS, paint, printable, show, span_text, state_name
from spincycle_grpc.client import Client
from spincycle_grpc.errors import SpinCycleError
from spincycle_grpc.v1.request_pb2 import Request
from spincycle_grpc.v1.state_pb2 import STATE_FAIL
from spincycle_grpc.waiting import is_final, is_polled_instead

if TYPE_CHECKING:
    from rich.progress import Progress

_MOST_FAILURES = 10


def follow(client: Client, request: Request, *, quiet: bool) -> Request:
    """Shows a request until it has ended.

    Args:
        client: Calls the server.
        request: The request as created.
        quiet: Whether to show nothing.

    Returns:
        The request in its final state, without job chain.

    Raises:
        SpinCycleError: A call failed.
    """
    if quiet:
        return client.wait(request.id)
    if not can_show_progress():
        return client.wait(request.id, on_change=_show_line)
    return _follow_live(client, request)


def can_show_progress() -> bool:
    """Whether the output is a terminal that can show a progress bar."""
    return sys.stdout.isatty() and os.environ.get("TERM") not in DUMB_TERMINALS


def show_end(client: Client, request: Request) -> None:
    """Prints the final state of a request and its failed jobs.

    Raises:
        SpinCycleError: A call failed.
    """
    show(state_line(request))
    if request.state != STATE_FAIL:
        return
    failed = failed_entries(client.log(request.id))
    for entry in failed[:_MOST_FAILURES]:
        error = f": {printable(entry.error)}" if entry.error else ""
        show(
            f"  failed: {printable(entry.job_id)} {printable(entry.name)}"
            f" (try {try_of(entry)}, exit {entry.exit}){error}"
        )
    if len(failed) > _MOST_FAILURES:
        show(f"  and {len(failed) - _MOST_FAILURES} more")
    show(f"  for the output: spinc log {printable(request.id)}")


def _follow_live(client: Client, request: Request) -> Request:
    counts = JobCounts()
    with progress_bar() as progress:
        task = progress.add_task(request_name(request), total=request.total_jobs, counts="")

        def show_progress(seen: Request) -> None:
            details = f" ({printable(seen.waiting)})" if seen.waiting else counts.text()
            progress.update(task, total=seen.total_jobs, completed=seen.finished_jobs, counts=details)

        try:
            for message in client.watch(request.id):
                counts.add(message)
                request = next((seen for seen in message.requests if seen.id == request.id), request)
                show_progress(request)
        except SpinCycleError as error:
            if not is_polled_instead(error):
                raise
        # An older server shows no running jobs, but the bar is still useful.
        return request if is_final(request) else client.wait(request.id, on_change=show_progress)


def progress_bar() -> Progress:
    """Returns a progress bar that disappears at the end. Its tasks have the field `counts`."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("jobs{task.fields[counts]}", markup=False),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=Console(), transient=True)


def _show_line(request: Request) -> None:
    if not is_final(request):
        show(state_line(request))


def state_line(request: Request) -> str:
    """Returns the state and the progress of a request, and how long it took or why it waits."""
    took = f" ({printable(request.waiting)})" if request.waiting else ""
    if request.HasField("started_at") and request.HasField("finished_at"):
        took = f" in {span_text(request.finished_at.ToNanoseconds() - request.started_at.ToNanoseconds())}"
    return f"{request_name(request)}: {paint(state_name(request.state))}, {_done(request)}{took}"


def request_name(request: Request) -> str:
    """Returns the type and the id of a request."""
    return f"{printable(request.type)} {printable(request.id)}"


def _done(request: Request) -> str:
    return f"{request.finished_jobs} of {request.total_jobs} jobs"
