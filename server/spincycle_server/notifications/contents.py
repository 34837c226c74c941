"""Reads what a notification says of its request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spincycle_grpc.job_paths import path_text
from spincycle_grpc.state import State
from spincycle_grpc.v1.notification_pb2 import Notification, NotifiedApproval
from spincycle_grpc.wire import decode
from spincycle_server.store.deliveries import FAILED
from spincycle_server.store.log_filter import LogFilter

if TYPE_CHECKING:
    from spincycle_server.notifications.targets import Target
    from spincycle_server.store import Store
    from spincycle_server.store.delivery_attempts import DueDelivery

MAX_JOBS = 10
"""The failed jobs that a notification lists."""

MAX_ERROR = 300
"""The longest line of an error, in characters."""

_FAILED = LogFilter(states=frozenset({State.FAIL}), latest_tries=True, omits_noops=True, newest_first=True)


async def contents_of(store: Store, delivery: DueDelivery, target: Target, public_url: str) -> Notification:
    """Returns the content of a delivery.

    The rows of an ended request do not change, so all attempts have the same content, as long as the request
    is not deleted. Then the content says what the delivery itself knows.

    Args:
        store: The requests.
        delivery: The delivery.
        target: Its target.
        public_url: The URL of the web page; "" if nobody knows it.
    """
    about = delivery.occurrence
    notification = Notification(
        id=delivery.key.event_id,
        event=about.event,
        target=target.name,
        request_id=about.request_id or "",
        request_type=about.request_type,
        request_state=State(about.state).name if about.request_id else "",
    )
    notification.time.FromMicroseconds(about.occurred_at)
    if about.request_id is not None:
        if public_url:
            notification.request_url = f"{public_url}/requests/{about.request_id}"
        exists = await _add_request(store, about.request_id, target, notification)
        if exists and about.event == FAILED:
            await _add_failed_jobs(store, about.request_id, target, notification)
    if about.detail is not None:
        notification.approval.CopyFrom(decode(about.detail, NotifiedApproval))
    return notification


async def _add_request(store: Store, request_id: str, target: Target, notification: Notification) -> bool:
    """Adds what the request says. Returns whether there is one: it may have been deleted."""
    request = (await store.requests_by_id([request_id])).get(request_id)
    if request is None:
        return False
    notification.user = request.user
    notification.created_at.CopyFrom(request.created_at)
    if target.args:
        args = await store.args_of([request_id], target.args)
        notification.args.update(args.get(request_id, {}))
    return True


async def _add_failed_jobs(store: Store, request_id: str, target: Target, notification: Notification) -> None:
    page = await store.get_log_page(request_id, None, MAX_JOBS, 0, _FAILED)
    for entry in page.entries:
        error = _last_line(entry.error) if target.shows_errors else ""
        path = path_text(entry.path) or entry.name
        notification.failed_jobs.add(job_id=entry.job_id, path=path, error=error)
    notification.more_failed_jobs = page.last is not None


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:MAX_ERROR] if lines else ""
