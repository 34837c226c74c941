"""URLs and addresses in options."""

from __future__ import annotations

import re
import socket
from urllib.parse import quote, urlsplit

from spincycle_server.config.errors import ConfigError
from spincycle_server.listening import Address

_GO_DSN = re.compile(
    r"(?:(?P<user>[^:@]*)(?::(?P<password>.*))?@)?"
    r"(?:(?P<network>\w+)(?:\((?P<address>[^)]*)\))?)?"
    r"/(?P<database>[^?]*)(?:\?(?P<parameters>.*))?"
)
_SECRET_PARAMETER = re.compile(r"(?<=[?&;])(\w*(?:password|secret|token|key)\w*)=[^&;]*", re.IGNORECASE)


def mask_secrets(address: str) -> str:
    """Returns a URL or a Go data source name with its password masked.

    Everything between the first colon of the user part and the last @ counts as the password. This also
    masks passwords with unescaped special characters completely.
    """
    scheme, separator, rest = address.rpartition("://") if "://" in address else ("", "", address)
    user_part, at, host_part = rest.rpartition("@")
    user, colon, _ = user_part.partition(":")
    masked = f"{scheme}{separator}{user}{':***' if colon else ''}{at}{host_part}"
    return _SECRET_PARAMETER.sub(r"\1=***", masked)


def grpc_address_of(url: str) -> str:
    """Returns the gRPC address of a server, derived from the URL of its HTTP endpoint.

    Raises:
        ConfigError: The URL is not http://host:port or https://host:port.
    """
    parts = urlsplit(url if "://" in url else f"http://{url}")
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme not in ("http", "https") or not parts.hostname or port is None:
        raise ConfigError(
            f"option rm_client.url: {mask_secrets(url)!r} must be http://host:port", reason="BAD_CONFIG"
        )
    return str(Address(parts.hostname, port).for_grpc())


def url_of_go_dsn(dsn: str) -> str:
    """Converts `user:password@tcp(host:3306)/database?parameters` to a URL.

    The parameters are dropped, because only the Go driver understands them.

    Raises:
        ConfigError: The text has another form. The message does not show it, because it contains a password.
    """
    match = _GO_DSN.fullmatch(dsn)
    if match is None or match["network"] not in (None, "tcp", "unix"):
        raise ConfigError(
            "option mysql.dsn: must be user:password@tcp(host:3306)/database", reason="BAD_CONFIG"
        )
    user = quote(match["user"] or "", safe="")
    password = f":{quote(match['password'], safe='')}" if match["password"] else ""
    at = "@" if user else ""
    if match["network"] == "unix":
        socket_path = quote(match["address"] or "", safe="")
        return f"mysql://{user}{password}{at}localhost/{match['database']}?unix_socket={socket_path}"
    return f"mysql://{user}{password}{at}{match['address'] or '127.0.0.1:3306'}/{match['database']}"


def advertised(address: Address, override: str = "") -> str:
    """Returns the host under which others reach this server: the override, the address or the host name."""
    if override:
        return override
    everywhere = ("0.0.0.0", "::", "")  # noqa: S104 (it listens nowhere)
    return socket.gethostname() if address.host in everywhere else address.host
