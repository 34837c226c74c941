"""`spinc approve`: approves what a request waits for."""

from __future__ import annotations

import click

from spincycle_grpc.cli.deciding import decide, decision_options
from spincycle_grpc.cli.settings import Settings, client_options, pass_settings


@click.command("approve")
@decision_options
@client_options
@pass_settings
def command(settings: Settings, request_id: str, job: str, comment: str) -> None:
    """Approve what a request waits for. It goes on when enough people have approved.

    Without --job, the request must wait for one approval only. `spinc status ID` shows what it waits for.
    """
    decide(
        settings,
        request_id,
        job,
        lambda client, job_id, number: client.approve(request_id, job_id, comment=comment, number=number),
    )
