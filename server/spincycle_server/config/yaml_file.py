"""Reads the options in a YAML file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from spincycle_server.config.errors import ConfigError
from spincycle_server.config.options import Config

_MAPS = frozenset(option.metadata["key"] for option in fields(Config) if option.metadata["is_map"])
"""The options whose values are maps."""


def _flatten(document: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in document.items():
        path = f"{prefix}{key}"
        if path in _MAPS:
            yield path, json.dumps(value) if value else ""
        elif isinstance(value, Mapping):
            yield from _flatten(value, f"{path}.")
        elif isinstance(value, list):
            yield path, ",".join(str(part) for part in value)
        elif value is not None:
            yield path, value if isinstance(value, str) else str(value)


class _Loader(yaml.BaseLoader):
    """Makes nothing but text, lists and maps. Refuses duplicate keys, of which YAML would use the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    problem = f"duplicate key {key.value}"
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_options(path: Path) -> dict[str, str]:
    """Returns the text of each option in a file, by its dotted name.

    Raises:
        ConfigError: The file cannot be read, is not valid YAML, or sets an option twice.
    """
    try:
        # S506: this loader makes no other objects. Each option parses its text.
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", reason="BAD_CONFIG") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" in line {where.line + 1}" if where else ""
        problem = f": {error.problem}" if isinstance(error, yaml.MarkedYAMLError) and error.problem else ""
        raise ConfigError(f"{path} is not valid YAML{line}{problem}", reason="BAD_CONFIG") from error
    if document in (None, ""):
        return {}
    if not isinstance(document, dict):
        raise ConfigError(f"{path} must contain a map of options", reason="BAD_CONFIG")
    options: dict[str, str] = {}
    for key, text in _flatten(document):
        if key in options:  # As server.addr, and as addr in the map server.
            raise ConfigError(f"{path} sets the option {key} twice", reason="BAD_CONFIG")
        options[key] = text
    return options
