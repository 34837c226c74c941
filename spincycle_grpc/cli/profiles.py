"""Profiles: named sets of options in a private file."""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from spincycle_grpc.cli.settings import parse_address, parse_seconds

DEFAULT_PROFILE = "default"
"""The profile that applies if no other one is chosen."""

_SECRET = ("token", "token_file", "key")


@dataclass(frozen=True)
class Profile:
    """The options of a profile, by their names in the file. Paths are absolute.

    Attributes:
        name: The name of the profile.
        options: The options. Empty: there is no default profile.
    """

    name: str = DEFAULT_PROFILE
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)


def profiles_file() -> Path:
    """Returns the path of the file, which need not exist."""
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(base) / "spinc" / "profiles.toml"


def find_profile(name: str | None) -> Profile:
    """Reads a profile.

    Args:
        name: The name. None: the default profile, which need not exist.

    Raises:
        click.UsageError: The profile does not exist or is invalid, or others may read or change its secrets.
    """
    path = profiles_file()
    try:
        tables = _read(path)
    except OSError as error:
        if name is None and not isinstance(error, IsADirectoryError):
            return Profile()
        raise click.UsageError(f"profile {name}: cannot read {path}: {error.strerror}") from error
    if name is None and DEFAULT_PROFILE not in tables:
        return Profile()
    chosen = DEFAULT_PROFILE if name is None else name
    if chosen not in tables:
        known = ", ".join(tables) or "none"
        raise click.UsageError(f"profile {chosen} does not exist: {path} has: {known}")
    return Profile(chosen, _parsed(path, chosen, tables[chosen]))


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """Returns the tables of the file, by name.

    Raises:
        OSError: The file cannot be read.
        click.UsageError: It has other contents, or is not private.
    """
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        try:
            document = tomllib.loads(file.read().decode("utf-8-sig"))  # Some editors write a mark first.
        except ValueError as error:  # Its text has a line and a column, but no value.
            raise click.UsageError(f"{path} is not valid TOML: {error}") from None
    for name, table in document.items():
        if not isinstance(table, dict):
            raise click.UsageError(
                f"{path}: {name} must be in a profile, below a line like [{DEFAULT_PROFILE}]"
            )
    _check_is_private(path, status, document)
    return document


def _check_is_private(path: Path, status: os.stat_result, tables: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuses a file with secrets that others may read, and a file that others may change.

    Whoever changes the address and the CA of a profile gets the tokens that are used with it.
    """
    if status.st_uid not in (os.getuid(), 0):
        raise click.UsageError(
            f"{path} belongs to another user, who could read your tokens: make your own file"
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise click.UsageError(f"{path} can be changed by other users: run `chmod 600 {path}`")
    has_secrets = any(name in table for table in tables.values() for name in _SECRET)
    if has_secrets and status.st_mode & (stat.S_IRGRP | stat.S_IROTH):
        raise click.UsageError(f"{path} has secrets, but other users can read it: run `chmod 600 {path}`")


def _parsed(path: Path, profile: str, table: Mapping[str, Any]) -> dict[str, Any]:
    options = {}
    for name, value in table.items():
        if name not in _PARSERS:
            raise click.UsageError(
                f"{path}: profile {profile}: unknown option {name}: use {', '.join(_PARSERS)}"
            )
        try:
            options[name] = _PARSERS[name](path.parent, value)
        except ValueError as error:
            raise click.UsageError(f"{path}: profile {profile}: {name}: {error}") from error
    if "token" in options and "token_file" in options:
        raise click.UsageError(f"{path}: profile {profile}: set token or token_file, not both")
    return options


def _text(_directory: Path, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("must be text in quotes")
    return value


def _path(directory: Path, value: object) -> str:
    """Returns an absolute path. `~` is the home directory, and other paths start where the file is."""
    return str(directory.absolute() / os.path.expanduser(_text(directory, value)))


def _address(directory: Path, value: object) -> str:
    return parse_address(_text(directory, value))


def _seconds(_directory: Path, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be a number of seconds above 0")
    return parse_seconds(value)


def _truth(_directory: Path, value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _token(_directory: Path, value: object) -> str:
    token = _text(_directory, value)
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError("must be one token, without spaces")
    return token


_PARSERS: dict[str, Callable[[Path, object], Any]] = {
    "addr": _address,
    "deadline": _seconds,
    "tls": _truth,
    "ca": _path,
    "cert": _path,
    "key": _path,
    "token_file": _path,
    "token": _token,
}
"""The parsers of the options. They raise ValueError for a wrong value, and do not show secrets."""
