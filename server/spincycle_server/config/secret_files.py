"""Secrets that an option names by a file, so that they are not in the environment."""

from __future__ import annotations

from pathlib import Path

from spincycle_server.config.errors import ConfigError


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


def _read(option: str, file: Path) -> str:
    try:
        secret = file.read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise ConfigError(f"option {option}_file: cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ConfigError(f"option {option}_file: {file} is not UTF-8 text") from None
    if not secret.strip() or "\n" in secret:
        raise ConfigError(f"option {option}_file: {file} must have one line with the value of {option}")
    return secret
