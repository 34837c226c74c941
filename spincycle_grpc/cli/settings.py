"""The options that `spinc` and all of its commands accept."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from spincycle_grpc.client import Client

_Command = TypeVar("_Command", bound=Callable[..., Any])

DEFAULT_ADDRESS = "127.0.0.1:32318"
DEFAULT_DEADLINE = 30.0

_ADDRESS = re.compile(r"(?:[^/\s:]+|\[[0-9a-fA-F:.%]+\]):[0-9]{1,5}|unix:.+", re.ASCII)


@dataclass
class Settings:
    """The common options that are given on the command line or by a variable.

    Attributes:
        as_json: Whether to print JSON.
        is_utc: Whether to show times in UTC instead of in the local time zone.
        profile: The profile to use. None: the default profile.
        given: The other options: `addr`, `deadline`, `tls`, `ca`, `cert`, `key` and `token_file`.
        sources: Where each of these comes from, for messages: "--addr" or "$SPINC_ADDR".
        sends_token: Whether the client has a token.
    """

    as_json: bool = False
    is_utc: bool = False
    profile: str | None = None
    given: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    sends_token: bool = False

    @property
    def zone(self) -> tzinfo | None:
        """The time zone in which to show times. None: the local one."""
        return UTC if self.is_utc else None

    def client(self) -> Client:
        """Opens a client of the server.

        Raises:
            click.UsageError: The profile or a file cannot be used.
        """
        # Importing gRPC is slow, and --help does not need it.
        from spincycle_grpc.cli.connection import connection_of

        connection = connection_of(self)
        self.sends_token = connection.token is not None
        return connection.open()


def parse_address(text: str) -> str:
    """Returns a valid host:port or unix:PATH.

    Raises:
        ValueError: The text has another form.
    """
    if not _ADDRESS.fullmatch(text):
        raise ValueError(f"{text!r} must be HOST:PORT, for example {DEFAULT_ADDRESS}, or unix:PATH")
    return text


def parse_seconds(text: str | float) -> float:
    """Returns a number of seconds above 0.

    Raises:
        ValueError: The text is something else.
    """
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ValueError(f"{text!r} must be a number of seconds above 0")
    return seconds


class _Parsed(click.ParamType[Any]):
    """The type of an option that a function parses.

    Args:
        name: What the help calls the value.
        parse: Returns the value of a text, or raises ValueError with a message.
    """

    def __init__(self, name: str, parse: Callable[[Any], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _parse_file(text: str) -> str:
    if not text:
        raise ValueError("the name of the file is empty")
    return text


_FILE = _Parsed("FILE", _parse_file)
_OPTIONS = {
    "--addr": (
        _Parsed("HOST:PORT", parse_address),
        f"gRPC address of the server, or unix:PATH. Default: {DEFAULT_ADDRESS}.",
    ),
    "--json": (None, "Print JSON."),
    "--utc": (None, "Show times in UTC. Default: the local time zone."),
    "--deadline": (_Parsed("SECONDS", parse_seconds), "Maximum time for one call. Default: 30."),
    "--profile": (_Parsed("NAME", str), "Profile of profiles.toml with the options of a server."),
    "--token-file": (_FILE, "File with the token that identifies you."),
    "--tls": (None, "Use TLS. --ca and --cert imply it."),
    "--ca": (_FILE, "PEM file of the CAs of the server. Default: public CAs."),
    "--cert": (_FILE, "PEM file of your certificate. Needs --key."),
    "--key": (_FILE, "PEM file of the key of your certificate."),
}
_WITHOUT_VARIABLE = ("--json", "--utc", "--deadline")
_NAMES = {"--json": "as_json", "--utc": "is_utc"}


def client_options(command: _Command) -> _Command:
    """Adds the common options to a command. An option after the subcommand overrides one before it."""
    for name, (kind, text) in reversed(_OPTIONS.items()):
        variable = None if name in _WITHOUT_VARIABLE else "SPINC_" + name[2:].replace("-", "_").upper()
        shown = f"{text} Variable: {variable}." if variable else text
        declarations = (name, _NAMES.get(name, name[2:].replace("-", "_")))
        command = click.option(
            *declarations,
            type=kind,
            is_flag=kind is None,
            envvar=variable,
            expose_value=False,
            callback=_keep,
            help=shown,
        )(command)
    return command


def _keep(context: click.Context, option: click.Parameter, value: object) -> None:
    """Keeps the value of an option. Variables count on the outermost command, and options override them."""
    name = str(option.name)
    source = context.get_parameter_source(name)
    is_option = source is ParameterSource.COMMANDLINE
    if not is_option and not (context.parent is None and value):
        return
    settings = context.ensure_object(Settings)
    if name in ("as_json", "is_utc", "profile"):
        setattr(settings, name, value)
        return
    settings.given[name] = value
    settings.sources[name] = option.opts[0] if is_option else f"${option.envvar}"


pass_settings = click.make_pass_decorator(Settings, ensure=True)
"""A decorator that passes the Settings to a command's function as its first argument."""
