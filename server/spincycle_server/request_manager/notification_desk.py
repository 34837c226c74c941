"""What administrators see of notifications, and do with them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from spincycle_grpc.errors import NotFoundError
from spincycle_grpc.v1.request_manager_pb2 import ListDeliveriesResponse
from spincycle_server.store.delivery_attempts import DeliveryKey

if TYPE_CHECKING:
    from spincycle_grpc.v1.notification_pb2 import DeliveryFilter
    from spincycle_server.notifications.notifier import Notifier
    from spincycle_server.request_manager.audit import AuditLog
    from spincycle_server.rpc import CallContext
    from spincycle_server.store import Store
    from spincycle_server.store.audit import EventRow


class NotificationDesk:
    """Lists deliveries, and sends events again.

    Args:
        store: The deliveries.
        audit: Makes the audit events of calls.
        notifier: Sends them.
    """

    def __init__(self, store: Store, audit: AuditLog, notifier: Notifier) -> None:
        self._store = store
        self._audit = audit
        self._notifier = notifier

    async def list(self, wanted: DeliveryFilter) -> ListDeliveriesResponse:
        """Returns a page of deliveries, and the names of the targets of this server.

        Raises:
            SpinCycleError: As `DeliveryQueue.list`.
        """
        page = await self._store.deliveries.list(wanted)
        return ListDeliveriesResponse(
            deliveries=page.deliveries, targets=self._notifier.names, next_page_token=page.next_token
        )

    async def redeliver(self, context: CallContext, event_id: str, target: str) -> None:
        """Lets an ended delivery be sent again.

        Raises:
            NotFoundError: This server has no such target. Reason: TARGET_NOT_FOUND.
            SpinCycleError: As `DeliveryQueue.redeliver`.
        """
        self._check(target)
        event = partial(self._event, context, "RequestManager.Redeliver", target)
        await self._store.deliveries.redeliver(DeliveryKey(event_id, target), event)
        self._notifier.wake(target)

    async def send_test(self, context: CallContext, target: str) -> str:
        """Sends a test event to a target. Returns the id of the event.

        Raises:
            NotFoundError: This server has no such target. Reason: TARGET_NOT_FOUND.
        """
        self._check(target)
        event = self._event(context, "RequestManager.SendTestNotification", target, None, "")
        event_id = await self._store.deliveries.add_test(target, event)
        self._notifier.wake(target)
        return event_id

    def _check(self, target: str) -> None:
        if target not in self._notifier.names:
            raise NotFoundError(
                f"this server has no target {target[:100]!r}: use one of notifications.targets",
                reason="TARGET_NOT_FOUND",
            )

    def _event(
        self, context: CallContext, operation: str, target: str, request_id: str | None, request_type: str
    ) -> EventRow | None:
        event = self._audit.event(context, operation, request_id or "", request_type)
        return None if event is None else {**event, "detail": f"target {target}"}
