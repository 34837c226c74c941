"""Reads the options from the defaults, a YAML file, environment variables and the command line.

A later source overrides an earlier one. Only this package reads configuration files and the environment.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import Any

from spincycle_grpc.trace_context import TRACEPARENT, TRACESTATE
from spincycle_server.config.errors import ConfigError
from spincycle_server.config.options import VARIABLE_PREFIX, Config
from spincycle_server.config.variables import check_variables
from spincycle_server.config.yaml_file import read_options


def _file_to_read(argument: str | None, environment: Mapping[str, str]) -> Path | None:
    if argument is not None:
        return Path(argument)
    path = Path("config") / f"{environment.get('ENVIRONMENT', 'development')}.yaml"
    return path if path.exists() else None


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """The configuration and where its values come from.

    Attributes:
        config: The configuration.
        sources: The source of each option that is set: a file, a variable, or "command line".
        file: The configuration file; None if there is none.
    """

    config: Config
    sources: Mapping[str, str]
    file: Path | None

    def newest_log_level(self) -> str:
        """Reads the configuration file again, and returns the level of the log.

        A variable and the command line override the file, as at the start.

        Raises:
            ConfigError: The file cannot be read, or the level is invalid.
        """
        options: dict[str, Field[Any]] = {option.metadata["key"]: option for option in fields(Config)}
        if self.file is None or self.sources.get("log.level", str(self.file)) != str(self.file):
            return self.config.log_level
        given = _from_file(self.file, options).get("log.level")
        level = Config().log_level if given is None else _parsed(options["log.level"], *given)
        return str(level)


def load_config(
    file: str | None = None,
    environment: Mapping[str, str] | None = None,
    overrides: Mapping[str, str | None] | None = None,
) -> Config:
    """Reads the configuration.

    Args:
        file: The YAML file, which must exist. None: `config/$ENVIRONMENT.yaml`, if it exists.
        environment: The environment variables. None: those of the process.
        overrides: Options of the command line by dotted name. A value of None counts as not given.

    Raises:
        ConfigError: The file, the name of an option or its value is invalid, or a variable is unknown. The
            message names it.
    """
    return load_with_sources(file, environment, overrides).config


def load_with_sources(
    file: str | None = None,
    environment: Mapping[str, str] | None = None,
    overrides: Mapping[str, str | None] | None = None,
) -> LoadedConfig:
    """Reads the configuration as `load_config` does, and notes the sources.

    Raises:
        ConfigError: See `load_config`.
    """
    environment = os.environ if environment is None else environment
    options: dict[str, Field[Any]] = {option.metadata["key"]: option for option in fields(Config)}
    check_variables(environment, options)
    path = _file_to_read(file, environment)
    given: dict[str, tuple[str, str]] = {}
    for later in (
        _from_file(path, options),
        _from_environment(environment, options),
        {key: (text, "command line") for key, text in (overrides or {}).items() if text is not None},
    ):
        overridden = [_other_form(key) for key in later if _other_form(key) not in later]
        given = {key: value for key, value in given.items() if key not in overridden} | later
    config = Config(**{options[key].name: _parsed(options[key], *value) for key, value in given.items()})
    return LoadedConfig(config, {key: source for key, (_, source) in given.items()}, path)


def _other_form(key: str) -> str:
    """Returns the option that names the file of an option's value, or the other way round."""
    return key.removesuffix("_file") if key.endswith("_file") else f"{key}_file"


def forget_environment() -> None:
    """Removes the variables of the servers from the environment of this process.

    Jobs run in this process and in its children, and their output is stored. So after the configuration is
    read, no job and no command may find a secret, such as the database's password, in its environment.
    """
    for name in [name for name in os.environ if name.startswith(VARIABLE_PREFIX)]:
        del os.environ[name]
    # A command works in the trace of its request, never in that of the program that started the server.
    for name in (TRACEPARENT.upper(), TRACESTATE.upper()):
        os.environ.pop(name, None)


def _from_file(path: Path | None, options: Collection[str]) -> dict[str, tuple[str, str]]:
    """Returns the text and the source of each option in a file."""
    if path is None:
        return {}
    texts = read_options(path)
    for group in [key for key in texts if any(option.startswith(f"{key}.") for option in options)]:
        if texts.pop(group):  # An empty group sets nothing, for example one whose options are comments.
            raise ConfigError(f"{path}: {group} must be a map of options", reason="BAD_CONFIG")
    unknown = sorted(set(texts) - set(options))
    if unknown:
        raise ConfigError(f"{path}: unknown option {unknown[0]}", reason="BAD_CONFIG")
    return {key: (text, str(path)) for key, text in texts.items()}


def _from_environment(
    environment: Mapping[str, str], options: Mapping[str, Field[Any]]
) -> dict[str, tuple[str, str]]:
    """Returns the text and the source of each option that an environment variable sets."""
    return {
        key: (environment[variable], variable)
        for key, option in options.items()
        for variable in reversed(option.metadata["variables"])
        if environment.get(variable)
    }


def _parsed(option: Field[Any], text: str, source: str) -> Any:
    try:
        return option.metadata["parse"](text)
    except ValueError as error:
        shown = "" if option.metadata["secret"] else f" {text!r}:"
        key = option.metadata["key"]
        raise ConfigError(f"option {key} ({source}):{shown} {error}", reason="BAD_CONFIG") from error
