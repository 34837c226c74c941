"""`spinc graph`: draws the jobs of a request."""

from __future__ import annotations

import click

from spincycle_grpc.cli.arguments import REQUEST_ID
from spincycle_grpc.cli.drawing import format_option, show_chain
from spincycle_grpc.cli.settings import Settings, client_options, pass_settings


@click.command("graph")
@click.argument("request_id", type=REQUEST_ID, metavar="ID")
@format_option
@client_options
@pass_settings
def command(settings: Settings, request_id: str, output_format: str) -> None:
    """Draw the jobs of a request, in the sequences to which they belong, with their args and retries.

    For a request that does not exist yet, see spinc plan. --json is short for --format=json.
    """
    with settings.client() as client:
        chain = client.job_chain(request_id)
    show_chain(chain, "json" if settings.as_json else output_format)
