"""`spinc find`: lists requests that match filters."""

from __future__ import annotations

from datetime import datetime

import click

from spincycle_grpc.cli.arguments import parse_words
from spincycle_grpc.cli.filters import filter_options
from spincycle_grpc.cli.output import note, show_json
from spincycle_grpc.cli.request_table import show_requests
from spincycle_grpc.cli.settings import Settings, client_options, pass_settings
from spincycle_grpc.state import State
from spincycle_grpc.v1.request_manager_pb2 import FindResponse
from spincycle_grpc.wire import encode


@click.command("find")
@filter_options
@click.option(
    "--limit",
    type=click.IntRange(0),
    metavar="NUMBER",
    default=100,
    show_default=True,
    help="Maximum number of requests. 0: no maximum.",
)
@click.option(
    "--offset",
    type=click.IntRange(0),
    metavar="NUMBER",
    default=0,
    help="Number of newest requests to skip. Needs a limit.",
)
@client_options
@pass_settings
def command(
    settings: Settings,
    *,
    request_type: str,
    states: tuple[str, ...],
    user: str,
    since: datetime | None,
    until: datetime | None,
    words: tuple[str, ...],
    limit: int,
    offset: int,
) -> None:
    """List requests that match all options, newest first.

    TIME is a date, a date with a time, or a duration before now: 2026-11-23, 2026-11-23T15:47:18Z, 2h30m.
    A TIME without a time zone is local time.
    """
    if offset and not limit:
        raise click.UsageError("--offset needs a --limit above 0")
    args = parse_words(words)
    with settings.client() as client:
        requests = client.find(
            type=request_type,
            states=[State[name] for name in states],
            user=user,
            since=since,
            until=until,
            limit=limit,
            offset=offset,
            args=args,
        )
    if settings.as_json:
        show_json(encode(FindResponse(requests=requests), "requests"))
        return
    show_requests(requests, settings.zone)
    if not requests:
        note("no request matches")
