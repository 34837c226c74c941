"""`spinc history`: shows who did what with a request."""

from __future__ import annotations

import time

import click

from spincycle_grpc.cli.arguments import REQUEST_ID
from spincycle_grpc.cli.output import show_json
from spincycle_grpc.cli.settings import Settings, client_options, pass_settings
from spincycle_grpc.cli.tables import Column, show_table
from spincycle_grpc.cli.times import age_text, time_text
from spincycle_grpc.client import Client
from spincycle_grpc.v1.audit_pb2 import AuditEvent
from spincycle_grpc.v1.request_manager_pb2 import ListAuditEventsResponse
from spincycle_grpc.wire import encode


@click.command("history")
@click.argument("request_id", type=REQUEST_ID, metavar="ID")
@click.option(
    "--limit",
    type=click.IntRange(1),
    metavar="NUMBER",
    default=1000,
    show_default=True,
    help="Maximum number of events: the newest ones.",
)
@client_options
@pass_settings
def command(settings: Settings, request_id: str, limit: int) -> None:
    """Show who created, started and stopped a request, and whose calls were denied, oldest first.

    The server has an audit log only if it authenticates users.
    """
    with settings.client() as client:
        events = _newest(client, request_id, limit)
        if not events:  # The events of deleted requests stay, so administrators may ask for any id.
            client.get(request_id, with_job_chain=False)
    events.reverse()
    if settings.as_json:
        show_json(encode(ListAuditEventsResponse(events=events), "events"))
        return
    now = time.time_ns()
    ages = Column("AGE", [age_text(event.occurred_at, now) for event in events])
    operations = [event.operation for event in events]
    methods = [operation.rpartition(".")[2] for operation in operations]
    show_table(
        (
            Column("TIME", [time_text(event.occurred_at, settings.zone) for event in events], narrow=ages),
            Column("USER", [event.user for event in events], least=6),
            Column("OPERATION", operations, narrow=Column("OPERATION", methods, least=8)),
            Column("OUTCOME", [event.outcome for event in events], least=8),
            Column("COUNT", [str(event.count) for event in events], may_drop=True),
            Column("FROM", [event.peer for event in events], may_drop=True),
            Column("DETAIL", [event.detail for event in events], least=12),
        ),
        ("FROM", "COUNT", "OPERATION", "TIME"),
    )


def _newest(client: Client, request_id: str, limit: int) -> list[AuditEvent]:
    events: list[AuditEvent] = []
    token = ""
    while True:
        page = client.list_audit_events(
            request_id=request_id, limit=min(limit - len(events), 1000), page_token=token
        )
        events.extend(page.events)
        token = page.next_page_token
        if not token or len(events) >= limit:
            return events
