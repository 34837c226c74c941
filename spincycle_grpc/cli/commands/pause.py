"""`spinc pause`: pauses a request."""

from __future__ import annotations

import click

from spincycle_grpc.cli.arguments import REQUEST_ID
from spincycle_grpc.cli.output import printable, show, show_json
from spincycle_grpc.cli.settings import Settings, client_options, pass_settings
from spincycle_grpc.v1.request_manager_pb2 import PauseRequest
from spincycle_grpc.wire import encode


@click.command("pause")
@click.argument("request_id", type=REQUEST_ID, metavar="ID")
@click.option("--now", "now", is_flag=True, help="Also stop the running jobs. They run again after resume.")
@client_options
@pass_settings
def command(settings: Settings, request_id: str, now: bool) -> None:
    """Pause a request: no further job starts until `spinc resume`. Running jobs end first."""
    with settings.client() as client:
        client.pause(request_id, now=now)
    if settings.as_json:
        show_json(encode(PauseRequest(request_id=request_id, now=now)))
        return
    show(f"pausing request {printable(request_id)}: to continue, run spinc resume {printable(request_id)}")
