"""The authentication plugin that `auth.plugin` names."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from spincycle_grpc.auth import Authenticator
from spincycle_grpc.errors import InvalidArgumentError
from spincycle_server.identity.credentials import Credentials
from spincycle_server.identity.identity import Identity


class PluginMethod:
    """Identifies users with a plugin.

    Args:
        plugin: The plugin.
    """

    hint = "the credentials that the server's authentication plugin knows"

    def __init__(self, plugin: Authenticator) -> None:
        self._plugin = plugin

    async def identify(self, credentials: Credentials) -> Identity | None:
        """Returns who the plugin says calls.

        Raises:
            SpinCycleError: The plugin refused the caller.
        """
        credentials.header("authorization")
        caller = await self._plugin.authenticate(credentials.metadata, credentials.peer)
        return Identity(caller, "plugin")


def load_authenticator(name: str) -> Authenticator:
    """Returns the authenticator that `auth.plugin` names.

    Args:
        name: `module:attribute` of an object with a coroutine function `authenticate`, or of a class that is
            created without arguments. The current directory is searched last.

    Raises:
        InvalidArgumentError: The authenticator cannot be loaded, or it has no `authenticate`. Reason:
            BAD_CONFIG.
    """
    module_name, _, attribute = name.partition(":")
    directory = str(Path.cwd())
    if directory not in sys.path:
        sys.path.append(directory)
    try:
        plugin = getattr(importlib.import_module(module_name), attribute)
        if isinstance(plugin, type):
            plugin = plugin()
    except Exception as error:
        message = f"option auth.plugin: cannot load {name!r}: {type(error).__name__}: {error}"
        raise InvalidArgumentError(message, reason="BAD_CONFIG") from error
    if not callable(getattr(plugin, "authenticate", None)):
        raise InvalidArgumentError(
            f"option auth.plugin: {name} must have a coroutine function authenticate(metadata, peer)",
            reason="BAD_CONFIG",
        )
    authenticator: Authenticator = plugin
    return authenticator
