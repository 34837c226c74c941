"""Shows a running request for `spinc start --wait`: a progress bar on a terminal, otherwise lines."""

from __future__ import annotations

import contextlib
import os
import sys

from spincycle_grpc.cli.counts import JobCounts, failed_entries, try_of
from spincycle_grpc.cli.output import paint, printable, show, span_text, state_name
from spincycle_grpc.client import Client
from spincycle_grpc.errors import SpinCycleError
from spincycle_grpc.v1.request_pb2 import Request
from spincycle_grpc.v1.state_pb2 import STATE_FAIL
from spincycle_grpc.waiting import is_final

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
    if not sys.stdout.isatty() or os.environ.get("TERM") in ("dumb", "unknown"):
        return client.wait(request.id, on_change=_show_line)
    return _follow_live(client, request)


def show_end(client: Client, request: Request) -> None:
    """Prints the final state of a request and its failed jobs.

    Raises:
        SpinCycleError: A call failed.
    """
    took = ""
    if request.HasField("started_at") and request.HasField("finished_at"):
        took = f" in {span_text(request.finished_at.ToNanoseconds() - request.started_at.ToNanoseconds())}"
    show(f"{_name(request)}: {paint(state_name(request.state))}, {_done(request)}{took}")
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
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("jobs{task.fields[counts]}", markup=False),
        TimeElapsedColumn(),
    )
    counts = JobCounts(client, request.id)
    # The bar disappears at the end. The caller then prints the final state.
    with Progress(*columns, console=Console(), transient=True) as progress:
        task = progress.add_task(_name(request), total=request.total_jobs, counts="")
        for seen in client.watch(request.id):
            # Without the counts, the bar is still useful. If the server stays away, `watch` raises the error.
            with contextlib.suppress(SpinCycleError):
                counts.refresh()
            progress.update(task, total=seen.total_jobs, completed=seen.finished_jobs, counts=counts.text())
    return seen


def _show_line(request: Request) -> None:
    if not is_final(request):
        show(f"{_name(request)}: {state_name(request.state)}, {_done(request)}")


def _name(request: Request) -> str:
    return f"{printable(request.type)} {printable(request.id)}"


def _done(request: Request) -> str:
    return f"{request.finished_jobs} of {request.total_jobs} jobs"
