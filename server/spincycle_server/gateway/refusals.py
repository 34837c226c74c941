"""Calls that are refused before they are read, since the server has as many as it takes.

Under twice the load that a server carries most of what comes is refused. Each refusal would cost a task, and
as much as a read; so the connection refuses such calls itself, with an answer that was made once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class UsersCalls:
    """Which calls are users', and so have no places of their own when the server is full.

    Attributes:
        methods: HTTP methods that no call of other servers has.
        paths: Paths without variables, by HTTP method, of other calls of users.
        others: Paths that are no call, and are answered in any case.
    """

    methods: Collection[bytes]
    paths: Collection[tuple[bytes, bytes]]
    others: Collection[bytes]

    def has(self, method: bytes, path: bytes) -> bool:
        """Whether a call is one of them; of some that are it says no."""
        return (method in self.methods or (method, path) in self.paths) and path not in self.others


class EarlyRefusals:
    """Says which calls are refused now, and with which answer.

    Args:
        is_full: Whether the server has as many calls as it takes.
        calls: The calls that are refused then.
        answer: What follows the headers of all answers with status 429.
        count: Is called for each call that is refused.
    """

    def __init__(
        self, is_full: Callable[[], bool], calls: UsersCalls, answer: bytes, count: Callable[[], None]
    ) -> None:
        self.is_due = is_full
        self._calls = calls
        self._answer = answer
        self._count = count

    def answer(self, method: bytes, target: bytes) -> bytes:
        """Returns the answer to a call, or nothing if it is not to be refused here."""
        if not self._calls.has(method, target.partition(b"?")[0]):
            return b""
        self._count()
        return self._answer


def users_calls(routes: Iterable[tuple[str, str, bool]], others: Iterable[str]) -> UsersCalls:
    """Returns which calls are users'.

    Args:
        routes: HTTP method, path template and whether other servers call it, of each route.
        others: Paths that are no route.
    """
    all_routes = list(routes)
    reserved = {method for method, _, is_reserved in all_routes if is_reserved}
    return UsersCalls(
        methods=frozenset(method.encode() for method, _, _ in all_routes if method not in reserved),
        paths=frozenset(
            (method.encode(), path.encode())
            for method, path, is_reserved in all_routes
            if not is_reserved and "{" not in path
        ),
        others=frozenset(path.encode() for path in others),
    )
