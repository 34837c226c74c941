"""`spinc status`: shows one request."""

from __future__ import annotations

import click

from spincycle_grpc.cli.arguments import REQUEST_ID
from spincycle_grpc.cli.failure_text import MOST_JOBS
from spincycle_grpc.cli.next_steps import next_steps
from spincycle_grpc.cli.output import show_object
from spincycle_grpc.cli.request_record import read_record
from spincycle_grpc.cli.request_summary import show_summary
from spincycle_grpc.cli.settings import Settings, client_options, pass_settings


@click.command("status")
@click.argument("request_id", type=REQUEST_ID, metavar="ID")
@click.option("--full", is_flag=True, help="Show all args, running jobs and failed jobs.")
@client_options
@pass_settings
def command(settings: Settings, request_id: str, *, full: bool) -> None:
    """Show a request: its state, its running jobs, its failed jobs with their errors, and what to do next.

    A failed job has its path, its tries, its error, and the last lines of its stderr. --json includes the job
    chain.
    """
    with settings.client() as client:
        request = client.get(request_id, with_job_chain=settings.as_json)
        shows_all = full or settings.as_json
        record = read_record(client, request, with_tries=None if shows_all else MOST_JOBS)
    if settings.as_json:
        show_object({**record.fields(), "next": [step for step, _ in next_steps(record)]})
        return
    show_summary(record, settings.zone, full=full)
