"""`spinc resume`: ends the pause of a request."""

from __future__ import annotations

import click

from spincycle_grpc.cli.arguments import REQUEST_ID
from spincycle_grpc.cli.output import printable, show, show_json
from spincycle_grpc.cli.settings import Settings, client_options, pass_settings
from spincycle_grpc.v1.request_manager_pb2 import ResumeRequest
from spincycle_grpc.wire import encode


@click.command("resume")
@click.argument("request_id", type=REQUEST_ID, metavar="ID")
@client_options
@pass_settings
def command(settings: Settings, request_id: str) -> None:
    """End the pause of a request. It continues where it was."""
    with settings.client() as client:
        client.resume(request_id)
    if settings.as_json:
        show_json(encode(ResumeRequest(request_id=request_id)))
        return
    show(f"resuming request {printable(request_id)}")
