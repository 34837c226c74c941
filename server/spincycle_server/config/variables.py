"""The environment variables of options, and those that look like one but are none."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import Field
from typing import Any

from spincycle_server.config.errors import ConfigError
from spincycle_server.config.options import VARIABLE_PREFIX, variable_of

_KUBERNETES = re.compile(r".*(_SERVICE_HOST|_SERVICE_PORT(_.*)?|_PORT(_.*)?)")
"""Variables that Kubernetes sets for each service whose name starts with "spincycle"."""

_OF_TESTS = ("SPINCYCLE_TEST_", "SPINCYCLE_CHAOS_")
"""Beginnings of variables that this project's tests read."""


def check_variables(environment: Mapping[str, str], options: Mapping[str, Field[Any]]) -> None:
    """Refuses variables that start like those of options but set none: they are probably misspelled.

    Raises:
        ConfigError: There is such a variable. The message suggests the nearest one.
    """
    known = [name for option in options.values() for name in option.metadata["variables"]]
    for name in sorted(environment):
        if not name.startswith(VARIABLE_PREFIX) or name in known or name.startswith(_OF_TESTS):
            continue
        if _KUBERNETES.fullmatch(name):
            continue
        raise ConfigError(f"unknown environment variable {name}: {_advice(name, known, options)}")


def _advice(name: str, known: list[str], options: Mapping[str, Field[Any]]) -> str:
    for key in options:
        if variable_of(key) == name:
            return f"set the option {key} in the configuration file, because no variable sets it"
    # Compared without the prefix, which makes all of them similar.
    words = {variable.removeprefix(VARIABLE_PREFIX): variable for variable in known}
    near = difflib.get_close_matches(name.upper().removeprefix(VARIABLE_PREFIX), words, n=1)
    return f"did you mean {words[near[0]]}?" if near else "remove it, `spincycle config` shows all variables"
