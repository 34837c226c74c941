"""`spinc stop`: stops a request."""

from __future__ import annotations

import click

from spincycle_grpc.cli.output import printable, show, show_json
from spincycle_grpc.cli.settings import Settings, client_options, pass_settings
from spincycle_grpc.v1.request_manager_pb2 import StopRequest
from spincycle_grpc.wire import encode


@click.command("stop")
@click.argument("request_id", metavar="ID")
@client_options
@pass_settings
def command(settings: Settings, request_id: str) -> None:
    """Stop a request: no further job starts, and running jobs are told to stop."""
    with settings.client() as client:
        client.stop(request_id)
    if settings.as_json:
        show_json(encode(StopRequest(request_id=request_id)))
        return
    show(f"stopping request {printable(request_id)}")
