"""Shows a running request for `spinc start --wait`: a progress bar on a terminal, otherwise lines."""

from __future__ import annotations

import os
import sys
from datetime import tzinfo
from typing import TYPE_CHECKING

from spincycle_grpc.cli.counts import JobCounts
from spincycle_grpc.cli.failure_text import MOST_JOBS
from spincycle_grpc.cli.output import DUMB_TERMINALS, paint, printable, show, state_name
from spincycle_grpc.cli.progress import progress_of
from spincycle_grpc.cli.request_record import read_record
from spincycle_grpc.cli.request_summary import show_problems
from spincycle_grpc.cli.tables import terminal_width
from spincycle_grpc.cli.times import span_text
from spincycle_grpc.client import Client
from spincycle_grpc.errors import SpinCycleError
from spincycle_grpc.v1.request_pb2 import Request
from spincycle_grpc.waiting import is_final, is_polled_instead

if TYPE_CHECKING:
    from rich.progress import Progress


_ROOM_FOR_BAR = 100
"""The width of a terminal that has room for a progress bar with all numbers."""


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


def show_end(client: Client, request: Request, zone: tzinfo | None) -> None:
    """Prints the final state of a request, its failed jobs, and what to type next.

    Raises:
        SpinCycleError: A call failed.
    """
    show(state_line(request))
    show_problems(read_record(client, request, with_tries=MOST_JOBS), zone)


def _follow_live(client: Client, request: Request) -> Request:
    counts = JobCounts()
    with progress_bar() as progress:
        task = progress.add_task(bar_name(request), total=progress_of(request).total, counts="")

        def show_progress(seen: Request) -> None:
            details = f" ({printable(seen.waiting)})" if seen.waiting else counts.text()
            finished, total = progress_of(seen)
            progress.update(task, total=total, completed=finished, counts=details, refresh=True)

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
    """Returns a progress bar that disappears at the end. Its tasks have the field `counts`.

    A narrow terminal has no room for the bar and the time beside the numbers.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    numbers = (MofNCompleteColumn(), TextColumn("jobs{task.fields[counts]}", markup=False))
    name = TextColumn("{task.description}", markup=False)
    is_narrow = terminal_width() < _ROOM_FOR_BAR
    columns = (name, *numbers) if is_narrow else (name, BarColumn(), *numbers, TimeElapsedColumn())
    return Progress(*columns, console=Console(), transient=True)


def bar_name(request: Request) -> str:
    """Returns what names a request beside its progress: on a narrow terminal, only its type."""
    return printable(request.type) if terminal_width() < _ROOM_FOR_BAR else request_name(request)


def _show_line(request: Request) -> None:
    if not is_final(request):
        show(state_line(request))


def state_line(request: Request) -> str:
    """Returns the state and the progress of a request, and how long it took or why it waits."""
    took = f" ({printable(request.waiting)})" if request.waiting else ""
    if request.HasField("started_at") and request.HasField("finished_at"):
        took = f" in {span_text(request.finished_at.ToNanoseconds() - request.started_at.ToNanoseconds())}"
    state = paint(state_name(request.state))
    return f"{request_name(request)}: {state}, {progress_of(request).sentence}{took}"


def request_name(request: Request) -> str:
    """Returns the type and the id of a request."""
    return f"{printable(request.type)} {printable(request.id)}"
