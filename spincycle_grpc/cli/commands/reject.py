"""`spinc reject`: rejects what a request waits for."""

from __future__ import annotations

import click

from spincycle_grpc.cli.deciding import decide, decision_options
from spincycle_grpc.cli.settings import Settings, client_options, pass_settings


@click.command("reject")
@decision_options
@client_options
@pass_settings
def command(settings: Settings, request_id: str, job: str, comment: str) -> None:
    """Reject what a request waits for. The job that waits fails at once.

    Without --job, the request must wait for one approval only. `spinc status ID` shows what it waits for.
    """
    decide(
        settings,
        request_id,
        job,
        lambda client, job_id, number: client.reject(request_id, job_id, comment=comment, number=number),
    )
