"""`spinc notifications`: lists what was sent to the targets of notifications."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import tzinfo

import click

from spincycle_grpc.cli.arguments import REQUEST_ID
from spincycle_grpc.cli.deliveries import STATES, newest_deliveries, state_name
from spincycle_grpc.cli.output import one_line, show, show_json
from spincycle_grpc.cli.settings import Settings, client_options, pass_settings
from spincycle_grpc.cli.tables import Column, show_table
from spincycle_grpc.cli.times import age_text, time_text
from spincycle_grpc.cli.whole_ids import whole_id
from spincycle_grpc.v1.notification_pb2 import Delivery
from spincycle_grpc.v1.request_manager_pb2 import ListDeliveriesResponse
from spincycle_grpc.wire import encode


@click.command("notifications")
@click.option("--request", "request_id", type=REQUEST_ID, metavar="ID", help="Only about this request.")
@click.option("--target", metavar="NAME", default="", help="Only those to this target.")
@click.option("--state", type=click.Choice(list(STATES)), help="Only those in this state.")
@click.option(
    "--limit",
    type=click.IntRange(1),
    metavar="NUMBER",
    default=100,
    show_default=True,
    help="Maximum number of notifications: the newest ones.",
)
@client_options
@pass_settings
def command(settings: Settings, request_id: str | None, target: str, state: str | None, limit: int) -> None:
    """List notifications with the outcome of their delivery, newest first. It needs an admin role.

    The last line names the targets of the server.
    """
    with settings.client() as client:
        deliveries, targets = newest_deliveries(
            client,
            request_id=whole_id(client, request_id) if request_id else "",
            target=target,
            state=STATES[state] if state else 0,
            limit=limit,
        )
    if settings.as_json:
        show_json(encode(ListDeliveriesResponse(deliveries=deliveries, targets=targets)))
        return
    _show(deliveries, settings.zone)
    show(f"targets: {', '.join(one_line(name) for name in targets) or 'none'}")


def _show(deliveries: Sequence[Delivery], zone: tzinfo | None) -> None:
    now = time.time_ns()
    ages = Column("AGE", [age_text(one.occurred_at, now) for one in deliveries])
    show_table(
        (
            Column("EVENT ID", [one.event_id for one in deliveries]),
            Column("TARGET", [one.target for one in deliveries], least=6),
            Column("EVENT", [one.event for one in deliveries]),
            Column("REQUEST", [one.request_id for one in deliveries], may_drop=True),
            Column("TYPE", [one.request_type for one in deliveries], least=6, may_drop=True),
            Column("TIME", [time_text(one.occurred_at, zone) for one in deliveries], narrow=ages),
            Column("STATE", [state_name(one.state) for one in deliveries]),
            Column("TRIES", [str(one.attempts) for one in deliveries], may_drop=True),
            Column("ERROR", [one.last_error for one in deliveries], least=12),
        ),
        ("TYPE", "TIME", "TRIES", "REQUEST"),
    )
