"""`spinc redeliver`: sends a notification again."""

from __future__ import annotations

import click

from spincycle_grpc.cli.arguments import NotEmptyType
from spincycle_grpc.cli.output import printable, show, show_json
from spincycle_grpc.cli.settings import Settings, client_options, pass_settings
from spincycle_grpc.v1.request_manager_pb2 import RedeliverRequest
from spincycle_grpc.wire import encode


@click.command("redeliver")
@click.argument("event_id", type=NotEmptyType(), metavar="EVENT_ID")
@click.argument("target", type=NotEmptyType(), metavar="TARGET")
@client_options
@pass_settings
def command(settings: Settings, event_id: str, target: str) -> None:
    """Send a notification again that was delivered or given up. It needs an admin role.

    `spinc notifications` shows event ids and targets. The notification keeps its id, so a receiver that has
    seen it may drop it.
    """
    with settings.client() as client:
        client.redeliver(event_id, target)
    if settings.as_json:
        show_json(encode(RedeliverRequest(event_id=event_id, target=target)))
        return
    show(f"sending event {printable(event_id)} to {printable(target)} again")
