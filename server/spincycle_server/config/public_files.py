"""Files with secrets that every user of the machine may read or change."""

from __future__ import annotations

import os
import stat
from dataclasses import fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spincycle_server.config.options import Config

_OTHERS = stat.S_IROTH | stat.S_IWOTH
_SECRETS = (
    ".key_file",
    "client_secret_file",
    "database.url_file",
    "mysql.dsn_file",
    "telemetry.otlp_headers_file",
)


def public_secret_files(config: Config) -> dict[str, str]:
    """Returns the options whose file every user may read or change, with the paths of the files.

    A server only warns of them: Kubernetes, for example, mounts secrets with such a mode.
    """
    found: dict[str, str] = {}
    for field in fields(config):
        option = str(field.metadata["key"])
        path = getattr(config, field.name)
        if option.endswith(_SECRETS) and path and _is_public(path):
            found[option] = path
    for name, target in config.notifications_targets.items():
        for path in (target.url_file, target.secret_file):
            if path and _is_public(path):
                found[f"notifications.targets: {name}"] = path
    return found


def _is_public(path: str) -> bool:
    try:
        return bool(os.stat(path).st_mode & _OTHERS)
    except OSError:
        return False  # What reads the file says so.
