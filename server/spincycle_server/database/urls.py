"""URLs of databases, including those of PostgreSQL with several hosts."""

from __future__ import annotations

import re

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from spincycle_grpc.errors import InvalidArgumentError

_DRIVERS = {
    "sqlite": "sqlite",
    "mysql": "mysql+spincycle",
    "mariadb": "mysql+spincycle",
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
}
_FORMS = "sqlite:///PATH, mysql://USER:PASSWORD@HOST/DATABASE or postgresql://USER:PASSWORD@HOST/DATABASE"

_HOSTS = re.compile(
    r"(?P<head>postgres(?:ql)?://(?:[^/?#]*@)?)(?P<hosts>[^/?#@]*,[^/?#@]*)(?P<tail>(?:[/?#].*)?)", re.DOTALL
)
"""The form of libpq: `postgresql://USER:PASSWORD@HOST:PORT,HOST:PORT/DATABASE`."""

_HOST = re.compile(r"(?P<host>\[[^\]]*\]|[^:]*)(?::(?P<port>\d*))?")


def parse_url(text: str) -> URL:
    """Parses the URL of a database, and adds the driver to use.

    PostgreSQL may have several hosts, as `HOST:PORT,HOST:PORT` or in parameters, `?host=HOST:PORT&host=…`.
    The one that accepts writes is used, unless the URL sets `target_session_attrs`.

    Raises:
        InvalidArgumentError: The URL is invalid or names an unsupported database. The message does not
            contain the URL, because that may contain a password.
    """
    hosts: list[str] = []
    if match := _HOSTS.fullmatch(text):
        hosts = match["hosts"].split(",")
        text = match["head"] + match["tail"]
    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:
        raise _bad(f"the database must be given as {_FORMS}") from error
    kind = url.get_backend_name()
    if kind not in _DRIVERS:
        raise _bad(f"databases of kind {kind!r} are not supported: use {_FORMS}")
    if kind == "sqlite" and (not url.database or url.database == ":memory:"):
        raise _bad("an SQLite database must be a file: use sqlite:///PATH")
    if kind != "sqlite" and not url.database:
        raise _bad(f"the URL names no database: use {_FORMS}")
    url = url.set(drivername=_DRIVERS[kind])
    return _with_hosts(url, hosts or _hosts_of(url)) if kind.startswith("postgres") else url


def _hosts_of(url: URL) -> list[str]:
    """Returns the hosts in the parameters of a URL."""
    given = url.query.get("host", ())
    return [host for part in ([given] if isinstance(given, str) else given) for host in part.split(",")]


def _with_hosts(url: URL, hosts: list[str]) -> URL:
    """Returns a URL with its hosts and ports in the parameters, as the driver expects them."""
    if len(hosts) < 2:
        return url
    ports = str(url.query.get("port", "")).split(",")
    names = []
    for index, text in enumerate(hosts):
        match = _HOST.fullmatch(text)
        if match is None or not match["host"]:
            raise _bad("each host of the database must be HOST or HOST:PORT")
        names.append(match["host"].strip("[]"))
        ports += [""] * (index + 1 - len(ports))
        ports[index] = match["port"] or ports[index] or (ports[0] if "port" in url.query else "5432")
    query: dict[str, str | tuple[str, ...]] = {"target_session_attrs": "read-write"}
    query |= {**url.query, "host": ",".join(names), "port": ",".join(ports[: len(names)])}
    return url.set(query=query, host=None, port=None)


def _bad(message: str) -> InvalidArgumentError:
    return InvalidArgumentError(message, reason="BAD_DATABASE_URL")
