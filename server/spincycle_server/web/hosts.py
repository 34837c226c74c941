"""The names under which browsers may reach this server.

A web page of an attacker can let its own name stand for the address of this server (DNS rebinding). The
browser then takes the server for a part of that page. The Host header still has the attacker's name.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection, Iterable

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::[0-9]{1,5})?")


class AllowedHosts:
    """Decides which Host headers are those of this server.

    Names of this machine and all IP addresses are: nobody can give an address a second meaning.

    Args:
        names: Further names. One that begins with "*." stands for all names with one more label.
        more_names: Returns names that can change, such as those of a certificate.
    """

    def __init__(self, names: Iterable[str], more_names: Callable[[], Collection[str]] = tuple) -> None:
        self._names = frozenset(name.lower().rstrip(".") for name in names)
        self._more_names = more_names

    def allows(self, host: str) -> bool:
        """Whether a Host header has a name of this server."""
        match = _HOST.fullmatch(host.strip())
        if match is None:
            return False
        name = match[1].lower().rstrip(".")
        if name == "localhost" or name.endswith(".localhost") or _is_address(name):
            return True
        wildcard = f"*.{name.partition('.')[2]}"
        names = {*self._names, *(one.lower() for one in self._more_names())}
        return name in names or wildcard in names


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
