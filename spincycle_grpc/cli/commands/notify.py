"""`spinc notify`: sends a test to a target of notifications, and says whether it arrived."""

from __future__ import annotations

import time

import click

from spincycle_grpc.cli.arguments import NotEmptyType
from spincycle_grpc.cli.failures import OTHER, Failure
from spincycle_grpc.cli.output import one_line, printable, show, show_json
from spincycle_grpc.cli.settings import Settings, client_options, pass_settings
from spincycle_grpc.client import Client
from spincycle_grpc.v1.notification_pb2 import DELIVERY_STATE_DELIVERED, DELIVERY_STATE_WAITING, Delivery
from spincycle_grpc.wire import encode

_PAUSE = 0.2
_LONGEST_WAIT = 30.0


@click.command("notify")
@click.argument("target", type=NotEmptyType(), metavar="TARGET")
@client_options
@pass_settings
def command(settings: Settings, target: str) -> None:
    """Send a test event to a target, and wait for its first attempt. It needs an admin role.

    The exit status is 5 if the receiver did not accept it.
    """
    with settings.client() as client:
        delivery = _first_attempt(client, target, client.send_test_notification(target))
    if settings.as_json:
        show_json(encode(delivery))
    elif delivery.state == DELIVERY_STATE_DELIVERED:
        show(f"{printable(target)} accepted the test")
    if delivery.last_error:
        raise Failure(f"{target} did not accept the test: {one_line(delivery.last_error)}", OTHER)
    if delivery.state == DELIVERY_STATE_WAITING:
        raise Failure(f"no attempt within {_LONGEST_WAIT:g} seconds, see spinc notifications", OTHER)


def _first_attempt(client: Client, target: str, event_id: str) -> Delivery:
    """Returns the delivery when it has ended or failed once, or when that takes too long."""
    deadline = time.monotonic() + _LONGEST_WAIT
    while True:
        (delivery,) = client.list_deliveries(event_id=event_id, target=target).deliveries
        is_over = delivery.state != DELIVERY_STATE_WAITING or bool(delivery.last_error)
        if is_over or time.monotonic() > deadline:
            return delivery
        time.sleep(_PAUSE)
