"""`spinc rerun`: creates a request again."""

from __future__ import annotations

import click

from spincycle_grpc.cli.arguments import REQUEST_ID
from spincycle_grpc.cli.created import show_created
from spincycle_grpc.cli.failures import OTHER, Failure
from spincycle_grpc.cli.settings import Settings, client_options, pass_settings
from spincycle_grpc.structs import from_value


@click.command("rerun")
@click.argument("request_id", type=REQUEST_ID, metavar="ID")
@click.option(
    "--wait", is_flag=True, help="Follow the new request until it ends. Ctrl-C does not stop the request."
)
@click.option(
    "--idempotency-key",
    metavar="KEY",
    help="Create only one request, even if you repeat the command with this KEY within a day.",
)
@client_options
@pass_settings
def command(settings: Settings, request_id: str, wait: bool, idempotency_key: str | None) -> None:
    """Create a request of the same type with the same args as an earlier one, and print its id.

    All its jobs run, as the specs are now. To do only the rest of a request, see spinc retry.
    """
    with settings.client() as client:
        earlier = client.get(request_id, with_job_chain=False)
        if earlier.args_omitted:
            raise Failure(f"the args of request {request_id} are too large: create it with the API", OTHER)
        args = {arg.name: from_value(arg.value) for arg in earlier.args if arg.given}
        created = client.create(earlier.type, args, idempotency_key=idempotency_key, strict_args=True)
        show_created(client, created, settings, wait=wait)
