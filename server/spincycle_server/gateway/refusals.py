"""Calls that the connection refuses before it reads them, because the limit of concurrent calls is reached.

A server under twice its capacity refuses most calls. If the app refused them, each refusal would need a task
and cost as much as a call that reads a request. So the connection refuses such calls itself, with an answer
that is prepared once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class UsersCalls:
    """Distinguishes users' calls from calls of other servers, for which the gate has a reserve.

    Attributes:
        methods: HTTP methods that no call of another server uses.
        paths: Further users' calls, as pairs of an HTTP method and a path without variables.
        others: Paths that are always answered because they are not calls.
    """

    methods: Collection[bytes]
    paths: Collection[tuple[bytes, bytes]]
    others: Collection[bytes]

    def has(self, method: bytes, path: bytes) -> bool:
        """Whether a request is certainly a user's call. It may be False for a user's call too."""
        return (method in self.methods or (method, path) in self.paths) and path not in self.others


class EarlyRefusals:
    """Decides which calls the connection refuses, and with which answer.

    Args:
        is_full: Whether the limit of concurrent calls is reached.
        calls: The calls to refuse while the limit is reached.
        answer: The rest of the answer, after the status line and the headers that all answers have.
        count: Called for each refused call.
    """

    def __init__(
        self, is_full: Callable[[], bool], calls: UsersCalls, answer: bytes, count: Callable[[], None]
    ) -> None:
        self.is_due = is_full
        self._calls = calls
        self._answer = answer
        self._count = count

    def refuse(self, method: bytes, target: bytes) -> bytes:
        """Counts a refusal and returns its answer; returns nothing if the app must answer the call."""
        if not self._calls.has(method, target.partition(b"?")[0]):
            return b""
        self._count()
        return self._answer


def users_calls(routes: Iterable[tuple[str, str, bool]], others: Iterable[str]) -> UsersCalls:
    """Returns the rule that recognizes users' calls.

    Args:
        routes: HTTP method, path template, and whether other servers call it, of each route.
        others: Paths that are not calls.
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
