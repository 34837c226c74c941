"""The authentication plugin that `auth.plugin` names."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import structlog

from spincycle_grpc.auth import Authenticator, Caller
from spincycle_grpc.errors import InvalidArgumentError, PermissionDeniedError, UnauthenticatedError
from spincycle_grpc.v1.request_pb2 import Request
from spincycle_server.identity.credentials import AUTHORIZATION, Credentials
from spincycle_server.identity.identity import Identity
from spincycle_server.identity.plugin_calls import PluginCalls

logger = structlog.get_logger(__name__)


class PluginMethod:
    """Identifies users with a plugin, and asks it what they may do.

    Args:
        plugin: An object with `authenticate`, and perhaps `authorize`; see `spincycle_grpc.auth`.
        timeout: Seconds that a call of the plugin may take.

    Raises:
        InvalidArgumentError: A function is missing or takes other arguments. Reason: BAD_CONFIG.
    """

    hint = "the credentials that the server's authentication plugin knows"

    def __init__(self, plugin: object, timeout: float) -> None:
        bind = _binder(getattr(plugin, "authenticate", None))
        if bind is None:
            raise _invalid(
                plugin, "authenticate(metadata, peer) or authenticate(metadata, peer, certificate)"
            )
        authorize = getattr(plugin, "authorize", None)
        if authorize is not None and not (callable(authorize) and _takes(authorize, 3)):
            raise _invalid(plugin, "authorize(caller, op, request)")
        self._bind = bind
        self._authorize = authorize
        self._calls = PluginCalls(timeout)
        self.limits = self._calls.limits

    @property
    def authorizes(self) -> bool:
        """Whether the plugin has `authorize`."""
        return self._authorize is not None

    async def identify(self, credentials: Credentials) -> Identity | None:
        """Returns who the plugin says calls.

        Raises:
            UnauthenticatedError: The plugin returned no valid caller. Reason: NO_CALLER.
            SpinCycleError: The plugin refused the caller, or failed; see `PluginCalls.call`.
        """
        credentials.header(AUTHORIZATION)
        caller = await self._calls.call("authenticate", self._bind(credentials))
        fault = _fault_of(caller)
        if fault:
            logger.warning("authentication plugin returned no valid caller", fault=fault)
            raise UnauthenticatedError(
                "the server's authentication plugin did not identify the caller: check your credentials; "
                "the server's log has details",
                reason="NO_CALLER",
            )
        return Identity(caller, "plugin")

    async def authorize(self, caller: Caller, operation: str, request: Request) -> None:
        """Asks the plugin whether a caller may do an operation with a request.

        Raises:
            PermissionDeniedError: The plugin answered False, or neither True nor None. Reason: ACCESS_DENIED.
            SpinCycleError: The plugin refused the operation, or failed; see `PluginCalls.call`.
        """
        if self._authorize is None:
            return
        answer = await self._calls.call("authorize", self._authorize, caller, operation, request)
        if answer is None or answer is True:
            return
        if answer is not False:
            kind = type(answer).__name__
            logger.error(
                "authentication plugin must return None, True or False", function="authorize", got=kind
            )
        raise PermissionDeniedError(
            f"caller {caller.name or '(unknown)'} may not {operation} this request of type {request.type}: "
            "the server's authentication plugin refused it",
            reason="ACCESS_DENIED",
            request_id=request.id,
        )


def load_authenticator(name: str) -> Authenticator:
    """Returns the plugin that `auth.plugin` names.

    Args:
        name: `module:attribute` of an object with a function `authenticate`, or of a class that is created
            without arguments. The current directory is searched last.

    Raises:
        InvalidArgumentError: The plugin cannot be loaded. Reason: BAD_CONFIG.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise InvalidArgumentError(
            f"option auth.plugin: {name!r} must be module:attribute, such as my_tokens:Tokens",
            reason="BAD_CONFIG",
        )
    directory = str(Path.cwd())
    if directory not in sys.path:
        sys.path.append(directory)
    try:
        plugin = getattr(importlib.import_module(module_name), attribute)
        if isinstance(plugin, type):
            plugin = plugin()
    except (Exception, SystemExit) as error:
        message = f"option auth.plugin: cannot load {name!r}: {type(error).__name__}: {error}"
        raise InvalidArgumentError(message, reason="BAD_CONFIG") from error
    authenticator: Authenticator = plugin
    return authenticator


def _invalid(plugin: object, function: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"option auth.plugin: {type(plugin).__name__} must have a function {function}", reason="BAD_CONFIG"
    )


_Bind: TypeAlias = Callable[[Credentials], Callable[[], Any]]


def _binder(authenticate: object) -> _Bind | None:
    """Returns how to call `authenticate`; None if it cannot be called.

    It gets the certificate if it has a parameter of this name, or a third parameter without a default.
    """
    if not callable(authenticate):
        return None
    if _has_keyword(authenticate, "certificate") and _takes(authenticate, 2, certificate=None):
        return lambda it: partial(authenticate, it.metadata, it.peer, certificate=it.certificate)
    if _takes(authenticate, 2):
        return lambda it: partial(authenticate, it.metadata, it.peer)
    if _takes(authenticate, 3):
        return lambda it: partial(authenticate, it.metadata, it.peer, it.certificate)
    return None


def _takes(function: Callable[..., Any], count: int, **named: None) -> bool:
    """Whether a function can be called with this number of arguments, as far as Python knows."""
    try:
        inspect.signature(function).bind(*range(count), **named)
    except ValueError:  # Python does not know the signature.
        return True
    except TypeError:
        return False
    return True


def _has_keyword(function: Callable[..., Any], name: str) -> bool:
    try:
        parameter = inspect.signature(function).parameters.get(name)
    except (TypeError, ValueError):
        return False
    return parameter is not None and parameter.kind in (
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.KEYWORD_ONLY,
    )


def _fault_of(caller: object) -> str:
    """Returns why a value is not a valid caller; "" if it is one. The value itself can be a secret."""
    if not isinstance(caller, Caller):
        return f"it must be a Caller, not {type(caller).__name__}"
    if not isinstance(caller.name, str) or not caller.name.isprintable():
        return "the name must be a string of printable characters"
    if not isinstance(caller.roles, AbstractSet):
        return f"the roles must be a set of strings, not {type(caller.roles).__name__}"
    if not all(isinstance(role, str) for role in caller.roles):
        return "each role must be a string"
    return ""
