"""Which hosts are this machine. Secrets may go to them in plain text."""

from __future__ import annotations

import ipaddress


def is_loopback_host(host: str) -> bool:
    """Whether a host is "localhost" or a loopback IP address. Other names may lead anywhere.

    Args:
        host: A name in lower case, or an IP address without brackets.
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
