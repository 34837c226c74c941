"""The token that a client sends with its calls, which tells the server who the user is."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NoReturn

import grpc
import grpc.aio

from spincycle_grpc.channels import is_this_machine
from spincycle_grpc.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    SpinCycleError,
    UnauthenticatedError,
)
from spincycle_grpc.tls import is_tls

Token = str | Callable[[], str]
"""A token, or a function that returns the token for one call."""

AsyncToken = str | Callable[[], str | Awaitable[str]]
"""A token, or a function or coroutine function that returns the token for one call."""

_CHARACTERS = re.compile(r"[\x21-\x7e]+")
_INSECURE_CHANNEL = "sufficient security level"
"""Part of gRPC's message when it refuses to send a token over a channel that is not encrypted."""


class CallTokens:
    """Adds the token to the options of each call. A token never leaves this machine in plain text.

    To this machine, and with credentials of `tls_credentials`, the token goes into the call's metadata. In
    all other cases it is passed as call credentials, which cost more, but which gRPC itself sends only over
    an encrypted channel. So a channel or credentials of the caller's own, whose kind nobody can see, cannot
    leak it either.

    Args:
        token: The token, or a function that is asked before each call. None: calls have no token.
        address: The address of the server.
        credentials: The credentials of the channel that the client opens. None: it opens it without TLS.
        is_own_channel: Whether the client opens the channel.

    Raises:
        InvalidArgumentError: The token is malformed (reason BAD_TOKEN), or would be sent in plain text to
            another machine (reason TOKEN_IN_PLAIN_TEXT).
    """

    def __init__(
        self,
        token: AsyncToken | None,
        address: str,
        credentials: grpc.ChannelCredentials | None,
        *,
        is_own_channel: bool,
    ) -> None:
        self._token = token if token is None or callable(token) else _checked(token)
        self._address = address
        is_plain_text = is_own_channel and credentials is None
        if token is not None and is_plain_text and not is_this_machine(address):
            raise self._plain_text_error("give the client credentials, from spincycle_grpc.tls_credentials")
        self._is_safe = is_own_channel and (credentials is None or is_tls(credentials))

    def options(self) -> Mapping[str, Any]:
        """Returns the arguments that a call of a stub needs for the token.

        Raises:
            SpinCycleError: The function did not return a usable token.
        """
        if self._token is None or isinstance(self._token, str):
            return self._options(self._token)
        try:
            token = self._token()
        except Exception as error:
            _raise_failure(error)
        return self._options(_checked(token))

    async def async_options(self, deadline: float) -> Mapping[str, Any]:
        """Returns the arguments that a call of an asyncio stub needs for the token.

        Args:
            deadline: Seconds that the function may take.

        Raises:
            SpinCycleError: The function did not return a usable token in time.
        """
        if self._token is None or isinstance(self._token, str):
            return self._options(self._token)
        try:
            async with asyncio.timeout(deadline) as limit:
                token = self._token()
                if inspect.isawaitable(token):
                    token = await token
        except Exception as error:
            if isinstance(error, TimeoutError) and limit.expired():
                raise DeadlineExceededError(
                    "the function that returns the token took too long: allow more time", reason="NO_TOKEN"
                ) from error
            _raise_failure(error)
        return self._options(_checked(token))

    def error_of(self, error: Exception) -> InvalidArgumentError | None:
        """Returns the error of a call if gRPC refused to send the token in plain text."""
        refused = isinstance(error, grpc.aio.UsageError) or (
            isinstance(error, grpc.RpcError)
            and error.code() is grpc.StatusCode.UNAUTHENTICATED
            and _INSECURE_CHANNEL in (error.details() or "")
        )
        if self._token is None or not refused:
            return None
        return self._plain_text_error("open the channel with TLS, or let the client open a channel")

    def _options(self, token: str | None) -> Mapping[str, Any]:
        if token is None:
            return {}
        if self._is_safe:
            return {"metadata": (("authorization", f"Bearer {token}"),)}
        return {"credentials": grpc.access_token_call_credentials(token)}

    def _plain_text_error(self, advice: str) -> InvalidArgumentError:
        return InvalidArgumentError(
            f"the token would be sent to {self._address} in plain text: {advice}",
            reason="TOKEN_IN_PLAIN_TEXT",
        )


def check_is_synchronous(token: AsyncToken | None) -> None:
    """Refuses a coroutine function, which the synchronous client cannot await.

    Raises:
        InvalidArgumentError: Reason BAD_TOKEN.
    """
    if inspect.iscoroutinefunction(token):
        raise InvalidArgumentError(
            "the function that returns the token is a coroutine function: use AsyncClient", reason="BAD_TOKEN"
        )


def _checked(token: object) -> str:
    """Returns a token that can be sent in a header. The message of an error does not show it."""
    if inspect.iscoroutine(token):
        token.close()  # Otherwise Python warns that nobody awaited it.
    if not isinstance(token, str) or not _CHARACTERS.fullmatch(token):
        raise InvalidArgumentError(
            "a token must be a str of printable ASCII characters without spaces, "
            f"but this is {_fault_of(token)}",
            reason="BAD_TOKEN",
        )
    return token


def _fault_of(token: object) -> str:
    if not isinstance(token, str):
        return type(token).__name__
    if not token:
        return "empty"
    if token.lower().startswith("bearer "):
        return "a header: leave out the word Bearer"
    if _CHARACTERS.fullmatch(token.strip()):
        return "a token with spaces or line ends around it: use token.strip()"
    return "other text"


def _raise_failure(error: Exception) -> NoReturn:
    if isinstance(error, SpinCycleError):
        raise error
    raise UnauthenticatedError(
        f"cannot get a token: {type(error).__name__}: {error}", reason="NO_TOKEN"
    ) from error
