"""`spinc count`: counts requests by state."""

from __future__ import annotations

from datetime import datetime

import click

from spincycle_grpc.cli.arguments import parse_words
from spincycle_grpc.cli.filters import filter_options
from spincycle_grpc.cli.output import show_json, state_name
from spincycle_grpc.cli.settings import Settings, client_options, pass_settings
from spincycle_grpc.cli.tables import Column, show_table
from spincycle_grpc.state import State
from spincycle_grpc.v1.request_manager_pb2 import CountRequestsResponse
from spincycle_grpc.wire import encode


@click.command("count")
@filter_options
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
) -> None:
    """Count the requests that match all options, by state.

    The server counts at most 10,000 requests of a state. "+" after a number says that there may be more.
    """
    args = parse_words(words)
    with settings.client() as client:
        counts = client.count_requests(
            type=request_type,
            states=[State[name] for name in states],
            user=user,
            since=since,
            until=until,
            args=args,
        )
    if settings.as_json:
        show_json(encode(CountRequestsResponse(counts=counts.values()), "counts"))
        return
    numbers = [f"{found.count:,}{'+' if found.more else ''}" for found in counts.values()]
    states_found = [state_name(found.state) for found in counts.values()]
    show_table((Column("STATE", states_found), Column("REQUESTS", numbers)))
