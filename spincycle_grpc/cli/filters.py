"""The options of `spinc` that filter requests."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import click

from spincycle_grpc.duration import parse_duration
from spincycle_grpc.state import State

_Command = TypeVar("_Command", bound=Callable[..., Any])

_STATES = [state.name for state in State if state not in (State.UNKNOWN, State.RESERVED)]


class _Time(click.ParamType[datetime]):
    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            return datetime.fromisoformat(value).astimezone()
        except (ValueError, OverflowError):
            pass
        try:
            return datetime.fromtimestamp(time.time(), UTC) - timedelta(
                microseconds=parse_duration(value) // 1000
            )
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r} must be a time like 2026-11-23T15:47:18Z, or a duration before now like 2h30m",
                param,
                ctx,
            )


_OPTIONS = (
    click.option("--type", "request_type", metavar="REQUEST", default="", help="Requests of this type."),
    click.option(
        "--state",
        "states",
        type=click.Choice(_STATES, case_sensitive=False),
        multiple=True,
        help="Requests in this state. Repeat for more states.",
    ),
    click.option("--user", default="", help="Requests of this user."),
    click.option("--since", type=_Time(), help="Requests that finished after TIME or have not finished."),
    click.option("--until", type=_Time(), help="Requests that were created before TIME."),
    click.option(
        "--arg",
        "words",
        multiple=True,
        metavar="NAME=VALUE",
        help="Requests with this arg. Repeat to require several args.",
    ),
)

_STATE_OPTION = 1


def filter_options(command: _Command) -> _Command:
    """Adds options for the type, states, user, times and args of requests to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def filter_options_without_states(command: _Command) -> _Command:
    """Adds the options of `filter_options` to a command that is for requests in certain states."""
    for option in reversed((*_OPTIONS[:_STATE_OPTION], *_OPTIONS[_STATE_OPTION + 1 :])):
        command = option(command)
    return command
