"""Ages and times on the command line."""

from __future__ import annotations

import time
from datetime import datetime

import click

from spincycle_grpc.duration import parse_duration


class Age(click.ParamType[int]):
    """A positive duration, in microseconds: 90d, 36h."""

    name = "duration"
    also = ""
    """Other texts that the option accepts. The message about an invalid duration names them."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Returns the duration, or fails with a message."""
        try:
            age = parse_duration(value, days=True) // 1000
        except ValueError as error:
            self.fail(f"{value!r} {error}{self.also}", param, ctx)
        if age <= 0:
            self.fail("must be positive", param, ctx)
        return age


class Moment(click.ParamType[int]):
    """A time, in microseconds since the Unix epoch: 2026-11-23T15:47:18Z, or 7d for seven days ago.

    A time without a time zone is local time.
    """

    name = "time"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Returns the time, or fails with a message."""
        try:
            moment = datetime.fromisoformat(value).astimezone()
            return max(0, int(moment.timestamp() * 1_000_000))
        except (ValueError, OverflowError):
            pass
        try:
            return max(0, (time.time_ns() - parse_duration(value, days=True)) // 1000)
        except ValueError:
            self.fail(
                f"{value!r} must be a time like 2026-11-23T15:47:18Z, or a duration before now like 7d",
                param,
                ctx,
            )
