"""`spinc watch`: follows one request until it ends, or all requests that match filters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

import click

from spincycle_grpc.calls import request_filter
from spincycle_grpc.cli.arguments import REQUEST_ID, parse_words
from spincycle_grpc.cli.changes import ChangeLines
from spincycle_grpc.cli.counts import JobCounts
from spincycle_grpc.cli.failure_text import MOST_JOBS
from spincycle_grpc.cli.failures import INTERRUPTED, Failure
from spincycle_grpc.cli.filters import filter_options
from spincycle_grpc.cli.following import bar_name, can_show_progress, progress_bar
from spincycle_grpc.cli.output import show, show_json
from spincycle_grpc.cli.progress import progress_of
from spincycle_grpc.cli.request_record import read_record
from spincycle_grpc.cli.request_summary import show_problems
from spincycle_grpc.cli.settings import Settings, client_options, pass_settings
from spincycle_grpc.cli.whole_ids import whole_id
from spincycle_grpc.state import State
from spincycle_grpc.v1.request_manager_pb2 import WatchResponse
from spincycle_grpc.v1.request_pb2 import Request, RequestFilter
from spincycle_grpc.v1.state_pb2 import STATE_COMPLETE
from spincycle_grpc.wire import encode


@click.command("watch")
@click.argument("request_id", type=REQUEST_ID, metavar="[ID]", required=False)
@filter_options
@click.option(
    "--limit",
    type=click.IntRange(0, 10_000),
    metavar="NUMBER",
    default=100,
    show_default=True,
    help="Maximum number of requests to show at the beginning. 0: 1,000.",
)
@client_options
@pass_settings
def command(
    settings: Settings,
    *,
    request_id: str | None,
    request_type: str,
    states: tuple[str, ...],
    user: str,
    since: datetime | None,
    until: datetime | None,
    words: tuple[str, ...],
    limit: int,
) -> None:
    """Show changes as they happen: states, progress, finished tries and running jobs.

    With ID, follow this request until it ends. The exit status is 1 if it is FAIL or STOPPED. Without ID,
    follow all requests that match all options, until Ctrl-C. --state only chooses what is shown at the
    beginning. --json prints each message of RequestManager.Watch on one line.
    """
    chosen = request_filter(
        request_type=request_type,
        states=[State[name] for name in states],
        user=user,
        since=since,
        until=until,
        limit=limit,
        offset=0,
        args=parse_words(words),
    )
    if request_id and chosen != RequestFilter(limit=limit):
        raise click.UsageError("give an ID or filters, not both")
    try:
        with settings.client() as client:
            watched = whole_id(client, request_id) if request_id else ""
            messages = client.watch(watched, filter=None if watched else chosen)
            ended = _show(messages, watched, as_json=settings.as_json)
            if ended is not None and not settings.as_json:
                show_problems(read_record(client, ended, with_tries=MOST_JOBS), settings.zone)
    except KeyboardInterrupt as error:
        raise Failure("", INTERRUPTED) from error
    if ended is not None and ended.state != STATE_COMPLETE:
        raise click.exceptions.Exit(1)


def _show(messages: Iterable[WatchResponse], request_id: str, *, as_json: bool) -> Request | None:
    """Shows messages until there are no more. Returns the request, if one is watched."""
    show_message = _show_json if as_json else _show_lines
    if request_id and not as_json and can_show_progress():
        show_message = _show_progress
    request = None
    for message in show_message(messages, request_id):
        request = next((seen for seen in message.requests if seen.id == request_id), request)
    return request


def _show_json(messages: Iterable[WatchResponse], _: str) -> Iterator[WatchResponse]:
    for message in messages:
        if len(message.ListFields()) > 1:  # A cursor alone says that there is nothing new.
            show_json(encode(message))
        yield message


def _show_lines(messages: Iterable[WatchResponse], request_id: str) -> Iterator[WatchResponse]:
    lines = ChangeLines(has_ids=not request_id)
    for message in messages:
        for line in lines.of(message):
            show(line)
        yield message


def _show_progress(messages: Iterable[WatchResponse], request_id: str) -> Iterator[WatchResponse]:
    """Shows lines above a progress bar. The bar has the running jobs, and disappears at the end."""
    from rich.text import Text

    lines = ChangeLines(is_with_bar=True)
    counts = JobCounts()
    with progress_bar() as progress:
        task = progress.add_task(request_id, total=None, counts="")
        for message in messages:
            counts.add(message)
            for line in lines.of(message):
                progress.console.print(Text.from_ansi(line), soft_wrap=True)
            for seen in message.requests:
                finished, total = progress_of(seen)
                progress.update(task, description=bar_name(seen), total=total, completed=finished)
            progress.update(task, counts=counts.text(with_names=True))
            yield message
