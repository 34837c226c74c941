"""The error of a configuration."""

from __future__ import annotations

from spincycle_grpc.errors import InvalidArgumentError


class ConfigError(InvalidArgumentError):
    """An option has an invalid value, or the configuration file cannot be read. Reason: BAD_CONFIG."""

    def __init__(self, message: str, *, reason: str = "BAD_CONFIG") -> None:
        super().__init__(message, reason=reason)
