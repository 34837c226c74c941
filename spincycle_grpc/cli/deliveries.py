"""Reads the deliveries of notifications."""

from __future__ import annotations

from spincycle_grpc.client import Client
from spincycle_grpc.v1.notification_pb2 import (
    DELIVERY_STATE_DELIVERED,
    DELIVERY_STATE_GIVEN_UP,
    DELIVERY_STATE_WAITING,
    Delivery,
)

STATES = {
    "waiting": DELIVERY_STATE_WAITING,
    "delivered": DELIVERY_STATE_DELIVERED,
    "given-up": DELIVERY_STATE_GIVEN_UP,
}
"""The states of deliveries by their names."""

_PAGE = 1000


def state_name(state: int) -> str:
    """Returns the name of a state; "?" if this version does not know it."""
    return next((name for name, number in STATES.items() if number == state), "?")


def newest_deliveries(
    client: Client, *, request_id: str, target: str, state: int, limit: int
) -> tuple[list[Delivery], list[str]]:
    """Returns up to `limit` deliveries that match filters, newest first, and the targets of the server."""
    deliveries: list[Delivery] = []
    token = ""
    while True:
        page = client.list_deliveries(
            request_id=request_id,
            target=target,
            state=state,
            limit=min(limit - len(deliveries), _PAGE),
            page_token=token,
        )
        deliveries.extend(page.deliveries)
        token = page.next_page_token
        if not token or len(deliveries) >= limit:
            return deliveries, list(page.targets)
