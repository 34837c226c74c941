"""How `spinc` connects to the server: its options, variables, profile and defaults."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click
import grpc

from spincycle_grpc.channels import is_this_machine
from spincycle_grpc.cli.profiles import Profile, find_profile
from spincycle_grpc.cli.settings import DEFAULT_ADDRESS, DEFAULT_DEADLINE, Settings
from spincycle_grpc.cli.token_file import TokenFile
from spincycle_grpc.client import Client
from spincycle_grpc.errors import InvalidArgumentError
from spincycle_grpc.tls import tls_credentials
from spincycle_grpc.trace_context import TRACEPARENT, TRACESTATE, TraceContext

if TYPE_CHECKING:
    from spincycle_grpc.tokens import Token


@dataclass(frozen=True)
class Connection:
    """What a client needs.

    Attributes:
        address: host:port of the server.
        deadline: Seconds that a call may take.
        credentials: For TLS. None: plain text.
        token: The token, or what returns it for each call. None: calls have no token.
        trace: The trace that calls belong to. None: they belong to none.
    """

    address: str
    deadline: float
    credentials: grpc.ChannelCredentials | None = None
    token: Token | None = field(default=None, repr=False)
    trace: TraceContext | None = None

    def open(self) -> Client:
        """Opens a client."""
        return Client(
            self.address,
            deadline=self.deadline,
            credentials=self.credentials,
            token=self.token,
            trace=self.trace,
        )


def connection_of(settings: Settings) -> Connection:
    """Returns the connection that options, variables, the profile and the defaults describe, in this order.

    Raises:
        click.UsageError: The profile or a file cannot be used, or a token would be sent to the wrong server
            or in plain text.
    """
    profile = find_profile(settings.profile)
    options = {**profile.options, **settings.given}
    address = options.get("addr", DEFAULT_ADDRESS)
    credentials = _credentials(options)
    token = _token(settings, profile)
    if token is not None and credentials is None and not is_this_machine(address):
        raise click.UsageError(
            f"the token would be sent to {address} in plain text: "
            "add --tls, or --ca FILE if the server's CA is not a public one"
        )
    deadline = options.get("deadline", DEFAULT_DEADLINE)
    return Connection(address, deadline, credentials, token, _trace(os.environ))


def _trace(environment: Mapping[str, str]) -> TraceContext | None:
    """Returns the trace that the caller of `spinc` works in, as tools pass it on."""
    names = (TRACEPARENT, TRACESTATE)
    return TraceContext.of_headers({name: environment.get(name.upper(), "") for name in names})


def _credentials(options: Mapping[str, Any]) -> grpc.ChannelCredentials | None:
    files = [options.get(name) for name in ("ca", "cert", "key")]
    if not options.get("tls") and not any(files):
        return None
    try:
        return tls_credentials(*files)
    except InvalidArgumentError as error:
        raise click.UsageError(error.message) from error


def _token(settings: Settings, profile: Profile) -> Token | None:
    if "token_file" in settings.given:
        return TokenFile(settings.given["token_file"])
    _check_same_server(settings, profile)
    if "token_file" in profile.options:
        return TokenFile(profile.options["token_file"])
    token: str | None = profile.options.get("token")
    return token


def _check_same_server(settings: Settings, profile: Profile) -> None:
    """Refuses to send the token of a profile to another server than the profile's own."""
    has_token = "token" in profile.options or "token_file" in profile.options
    own, other = profile.options.get("addr"), settings.given.get("addr")
    if has_token and own and other and own != other:
        source = settings.sources["addr"]
        raise click.UsageError(
            f"the token of profile {profile.name} is for {own}, but {source} names {other}: "
            f"drop {source}, or choose another profile or --token-file"
        )
