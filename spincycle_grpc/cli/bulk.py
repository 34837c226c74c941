"""Commands of `spinc` for all requests that match filters: they show a list and ask first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import click

from spincycle_grpc.cli.arguments import can_ask, parse_words
from spincycle_grpc.cli.failures import OTHER, Failure, failure_of
from spincycle_grpc.cli.output import note, one_line
from spincycle_grpc.cli.request_table import show_requests
from spincycle_grpc.cli.settings import Settings
from spincycle_grpc.client import Client
from spincycle_grpc.errors import SpinCycleError, Status
from spincycle_grpc.state import State
from spincycle_grpc.v1.request_pb2 import Request

MOST = 1000
"""The maximum number of requests of one command."""

_AWAY = frozenset({Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED, Status.UNAUTHENTICATED})
"""Failures after which the next call would fail too."""


@dataclass(frozen=True)
class Selection:
    """The filters of a command. Times are of the requests' creation and end, as for `spinc find`."""

    request_type: str
    user: str
    since: datetime | None
    until: datetime | None
    words: tuple[str, ...]

    def check(self, request_id: str | None) -> None:
        """Checks that a command has either a request or filters.

        Raises:
            click.UsageError: It has both, or neither.
        """
        has_filter = any((self.request_type, self.user, self.since, self.until, self.words))
        if request_id is not None and has_filter:
            raise click.UsageError("name a request or filter requests, not both")
        if request_id is None and not has_filter:
            raise click.UsageError("name a request, or filter requests, for example with --type")

    def find(self, client: Client, states: Iterable[State]) -> list[Request]:
        """Returns the requests in some states, oldest first.

        Raises:
            click.UsageError: There are too many.
        """
        found = client.find(
            type=self.request_type,
            states=states,
            user=self.user,
            since=self.since,
            until=self.until,
            args=parse_words(self.words),
            limit=MOST + 1,
        )
        if len(found) > MOST:
            raise click.UsageError(f"more than {MOST} requests match: narrow the filters")
        return found[::-1]


def confirm(requests: Sequence[Request], verb: str, settings: Settings, *, yes: bool) -> None:
    """Shows requests, and asks whether to do something with them.

    Args:
        requests: The requests.
        verb: What will be done: "stop".
        settings: Whether the output is JSON. Then the list is not shown.
        yes: Whether the user has said yes on the command line.

    Raises:
        click.UsageError: Nobody can answer.
        Failure: The user said no.
    """
    if not settings.as_json:
        show_requests(requests, settings.zone)
    if not requests:
        note(f"nothing was done: no request to {verb} matches")
    if yes or not requests:
        return
    if settings.as_json or not can_ask():
        raise click.UsageError(f"nothing was done: add --yes to {verb} {_number(requests)}")
    if not click.confirm(f"{verb} {_number(requests)}?", err=True):
        raise Failure(f"nothing was done: you did not say yes to {verb} {_number(requests)}", OTHER)


def do_each(requests: Sequence[Request], verb: str, action: Callable[[Request], None]) -> Failure | None:
    """Does something with each request. Goes on after a refusal, and ends if the server is away.

    Returns:
        The failure of the first request that was refused; None if there was none.
    """
    refused: list[Failure] = []
    for place, request in enumerate(requests):
        try:
            action(request)
        except SpinCycleError as error:
            failure = failure_of(error)
            if error.status in _AWAY:
                raise Failure(
                    f"cannot {verb} request {request.id} and {len(requests) - place - 1} more: "
                    f"{failure.message}",
                    failure.status,
                ) from error
            click.echo(one_line(f"cannot {verb} request {request.id}: {error.message}"), err=True)
            refused.append(failure)
    if not refused:
        return None
    return Failure(f"cannot {verb} {len(refused)} of {_number(requests)}", refused[0].status)


def _number(requests: Sequence[Request]) -> str:
    return "1 request" if len(requests) == 1 else f"{len(requests)} requests"
