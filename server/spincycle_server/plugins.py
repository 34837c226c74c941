"""Plugins that the configuration names: the authenticator."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from spincycle_server.config import ConfigError
from spincycle_server.rpc import Authenticator


def load_authenticator(name: str) -> Authenticator | None:
    """Returns the authenticator that `auth.plugin` names; None for "".

    Args:
        name: `module:attribute` of a class without arguments, or of an object, that has a coroutine
            `authenticate`. The module is looked for in the current directory too, after all else.

    Raises:
        ConfigError: There is none, or it has no `authenticate`.
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
        said = f"option auth.plugin: cannot load {name!r}: {type(error).__name__}: {error}"
        raise ConfigError(said, reason="BAD_CONFIG") from error
    if not callable(getattr(plugin, "authenticate", None)):
        raise ConfigError(
            f"option auth.plugin: {name} needs a coroutine authenticate(metadata, peer)", reason="BAD_CONFIG"
        )
    authenticator: Authenticator = plugin
    return authenticator
