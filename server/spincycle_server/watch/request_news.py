"""What the hub tells the watchers of one request, and the message that says it."""

from __future__ import annotations

from collections.abc import Sequence

from spincycle_grpc.state import FINAL_STATES
from spincycle_grpc.v1.request_manager_pb2 import RunningJobs, WatchResponse
from spincycle_grpc.v1.request_pb2 import Request
from spincycle_server.shared_messages import SharedMessage
from spincycle_server.store.changes import Try
from spincycle_server.store.positions import Position
from spincycle_server.watch.cursor import Cursor, scope_of


class RequestNews:
    """Changes of one request. All of its watchers get the same object, so its message is built once.

    Args:
        request_id: The request.
        position: All changes of the request up to here are in this news or in earlier ones.
        request: The request, if it has changed.
        tries: The finished tries, in order.
        running: The running jobs, if these have changed.
        is_gone: Whether the request was deleted.
        is_complete: Whether these are all changes. Otherwise the watcher reads them itself.
        is_repeated: Whether a watcher that has no room for this news gets the same again later.

    Attributes:
        position: See there, as for those that follow it.
    """

    __slots__ = (
        "_messages", "_request_id", "_size", "_state_data", "is_complete", "is_gone", "is_repeated",
        "position", "request", "running", "tries",
    )  # fmt: skip

    def __init__(
        self,
        request_id: str,
        position: Position,
        request: Request | None = None,
        tries: Sequence[Try] = (),
        running: RunningJobs | None = None,
        *,
        is_gone: bool = False,
        is_complete: bool = True,
        is_repeated: bool = False,
    ) -> None:
        self._request_id = request_id
        self.position = position
        self.request = request
        self.tries = tries
        self.running = running
        self.is_gone = is_gone
        self.is_complete = is_complete
        self.is_repeated = is_repeated
        self._state_data: bytes | None = None
        self._size: int | None = None
        self._messages: dict[tuple[bool, bool], SharedMessage | None] = {}

    @property
    def state_data(self) -> bytes:
        """The request in bytes, which are equal if nothing has changed; none if there is no request."""
        if self._state_data is None:
            request = self.request
            self._state_data = b"" if request is None else request.SerializeToString(deterministic=True)
        return self._state_data

    @property
    def size(self) -> int:
        """About how many bytes the largest message of this news has."""
        if self._size is None:
            self._size = len(self.state_data) + sum(one.entry.ByteSize() for one in self.tries)
        return self._size

    def message(self, *, has_tries: bool, has_state: bool) -> SharedMessage | None:
        """Returns the message for watchers that have everything up to this news; None if it says nothing.

        Args:
            has_tries: Whether the watcher may see the finished tries.
            has_state: Whether the watcher needs the state of the request.
        """
        key = has_tries, has_state
        if key not in self._messages:
            self._messages[key] = self._message(has_tries=has_tries, has_state=has_state)
        return self._messages[key]

    def _message(self, *, has_tries: bool, has_state: bool) -> SharedMessage | None:
        request = self.request if has_state else None
        tries = [one.entry for one in self.tries] if has_tries else []
        if request is None and not tries and self.running is None:
            return None
        has_ended = request is not None and request.state in FINAL_STATES
        cursor = Cursor(scope_of("request", self._request_id), self.position, has_ended=has_ended)
        return SharedMessage(
            WatchResponse(
                cursor=cursor.text(),
                requests=() if request is None else (request,),
                tries=tries,
                running=() if self.running is None else (self.running,),
            )
        )
