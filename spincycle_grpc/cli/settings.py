"""The options that `spinc` and all of its commands accept."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from spincycle_grpc.client import Client

_Command = TypeVar("_Command", bound=Callable[..., Any])

_DEFAULT_ADDRESS = "127.0.0.1:32318"
_ADDRESS = re.compile(r"(?:[^/\s:]+|\[[0-9a-fA-F:.%]+\]):[0-9]{1,5}", re.ASCII)


@dataclass
class Settings:
    """The values of the common options.

    Attributes:
        address: host:port of the server.
        deadline: Seconds that a call may take.
        as_json: Whether to print JSON.
    """

    address: str = _DEFAULT_ADDRESS
    deadline: float = 30.0
    as_json: bool = False

    def client(self) -> Client:
        """Opens a client of the server."""
        from spincycle_grpc.client import Client  # Importing gRPC is slow, and --help does not need it.

        return Client(self.address, deadline=self.deadline)


class _Address(click.ParamType[str]):
    name = "HOST:PORT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not _ADDRESS.fullmatch(value):
            self.fail(f"{value!r} must be HOST:PORT, for example {_DEFAULT_ADDRESS}", param, ctx)
        return str(value)


class _Seconds(click.ParamType[float]):
    name = "SECONDS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            seconds = float(value)
        except ValueError:
            seconds = math.nan
        if not 0 < seconds < math.inf:
            self.fail(f"{value!r} must be a number of seconds above 0", param, ctx)
        return seconds


def client_options(command: _Command) -> _Command:
    """Adds the common options to a command. An option after the subcommand overrides one before it."""
    for option in (
        click.option(
            "--deadline",
            type=_Seconds(),
            expose_value=False,
            callback=_keep,
            help="Maximum time for one call to the server. Default: 30.",
        ),
        click.option(
            "--json",
            "as_json",
            is_flag=True,
            expose_value=False,
            callback=_keep,
            help="Print JSON.",
        ),
        click.option(
            "--addr",
            "address",
            type=_Address(),
            envvar="SPINC_ADDR",
            expose_value=False,
            callback=_keep,
            help=f"gRPC address of the Request Manager. Default: $SPINC_ADDR or {_DEFAULT_ADDRESS}.",
        ),
    ):
        command = option(command)
    return command


def _keep(context: click.Context, option: click.Parameter, value: object) -> None:
    source = context.get_parameter_source(option.name or "")
    is_outermost = context.parent is None
    if source is click.core.ParameterSource.COMMANDLINE or (is_outermost and value):
        setattr(context.ensure_object(Settings), str(option.name), value)


pass_settings = click.make_pass_decorator(Settings, ensure=True)
"""A decorator that passes the Settings to a command's function as its first argument."""
