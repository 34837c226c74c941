"""`spinc export`: writes a report of a request for a ticket."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from spincycle_grpc.cli.arguments import REQUEST_ID
from spincycle_grpc.cli.output import show, show_object
from spincycle_grpc.cli.request_record import read_record
from spincycle_grpc.cli.request_report import MOST_JOBS, RequestReport
from spincycle_grpc.cli.settings import Settings, client_options, pass_settings
from spincycle_grpc.errors import (
    FailedPreconditionError,
    NotFoundError,
    PermissionDeniedError,
    UnimplementedError,
)
from spincycle_grpc.v1.audit_pb2 import AuditEvent
from spincycle_grpc.v1.request_pb2 import Request

if TYPE_CHECKING:
    from spincycle_grpc.client import Client

_MOST_EVENTS = 100


@click.command("export")
@click.argument("request_id", type=REQUEST_ID, metavar="ID")
@click.option(
    "--format",
    "output_format",
    type=click.Choice(("markdown", "json")),
    default="markdown",
    show_default=True,
    help="Output format. --json is short for --format=json.",
)
@client_options
@pass_settings
def command(settings: Settings, request_id: str, output_format: str) -> None:
    """Write a report of a request for a ticket: args, times, failed jobs with errors, and who did what.

    Times are in UTC. In Markdown, text of users and jobs is code, so it cannot be markup, a link or a
    mention. Args whose names look secret, such as password or api_key, are hidden. Read what jobs have
    written to stderr before you publish it.
    """
    with settings.client() as client:
        request = client.get(request_id, with_job_chain=False)
        report = RequestReport(
            read_record(client, request, with_tries=MOST_JOBS),
            _retry(client, request),
            _events(client, request.id),
        )
    if settings.as_json or output_format == "json":
        show_object(report.fields())
        return
    for line in report.as_markdown():
        show(line)


def _retry(client: Client, request: Request) -> Request | None:
    """Returns the newest retry of a request, if there is one that the user may see."""
    if not request.retried_by:
        return None
    try:
        return client.get(request.retried_by, with_job_chain=False)
    except (NotFoundError, PermissionDeniedError):
        return None


def _events(client: Client, request_id: str) -> list[AuditEvent]:
    """Returns the newest events of a request, oldest first, if the server has an audit log."""
    try:
        events = client.list_audit_events(request_id=request_id, limit=_MOST_EVENTS).events
    except (FailedPreconditionError, PermissionDeniedError, UnimplementedError):
        return []
    return events[::-1]
