"""Secrets that an option names by a file, so that they are not in the environment."""

from __future__ import annotations

import re
from pathlib import Path

from spincycle_server.config.errors import ConfigError

_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")


def secret_of(option: str, value: str, file: str) -> str:
    """Returns the value of an option that can also come from a file.

    Args:
        option: The option. The option of the file has the same name with `_file`.
        value: The value of the option, or "".
        file: The path of the file, or "". The file has one line, with or without a newline at its end.

    Raises:
        ConfigError: Both are set, or the file cannot be read, or has another form. The message does not show
            the secret.
    """
    if not file:
        return value
    if value:
        raise ConfigError(f"option {option}_file: {option} is set too: set one of the two")
    return _read(option, Path(file))


def headers_of(option: str, file: str) -> dict[str, str]:
    """Returns the headers in a file, which has a line `name: value` for each. Empty lines are ignored.

    Args:
        option: The option that names the file.
        file: The path of the file, or "" for no headers.

    Raises:
        ConfigError: The file cannot be read, or has another form. The message does not show its content.
    """
    if not file:
        return {}
    headers: dict[str, str] = {}
    for number, line in enumerate(_text_of(option, Path(file)).splitlines(), 1):
        if not line.strip():
            continue
        name, colon, value = (part.strip() for part in line.partition(":"))
        if not colon or not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            raise ConfigError(f"option {option}: line {number} of {file} must have the form name: value")
        headers[name] = value
    return headers


def _read(option: str, file: Path) -> str:
    secret = _text_of(f"{option}_file", file).rstrip("\r\n")
    if not secret.strip() or "\n" in secret:
        raise ConfigError(f"option {option}_file: {file} must have one line with the value of {option}")
    return secret


def _text_of(option: str, file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"option {option}: cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ConfigError(f"option {option}: {file} is not UTF-8 text") from None
