"""Loads the plugins that the configuration names."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from spincycle_grpc.auth import Authenticator
from spincycle_server.config import ConfigError


def load_authenticator(name: str) -> Authenticator | None:
    """Returns the authenticator that `auth.plugin` names, or None if the name is "".

    Args:
        name: `module:attribute` of an object with a coroutine function `authenticate`, or of a class that is
            created without arguments. The current directory is searched last.

    Raises:
        ConfigError: The authenticator cannot be loaded, or it has no `authenticate`.
    """
    if not name:
        return None
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
        raise ConfigError(message, reason="BAD_CONFIG") from error
    if not callable(getattr(plugin, "authenticate", None)):
        raise ConfigError(
            f"option auth.plugin: {name} must have a coroutine function authenticate(metadata, peer)",
            reason="BAD_CONFIG",
        )
    authenticator: Authenticator = plugin
    return authenticator
