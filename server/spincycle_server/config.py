"""The configuration of the servers: one table of options.

The sources are the defaults, a YAML file, environment variables and the command line. A later source
overrides an earlier one. The original's options and environment variables keep their names. New options
follow the original's rule: `jobs.create_timeout` is SPINCYCLE_JOBS_CREATE_TIMEOUT.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import yaml

from spincycle_grpc.duration import parse_duration
from spincycle_grpc.errors import InvalidArgumentError
from spincycle_server.listening import Address, TlsFiles

_SIZE = re.compile(r"(\d+)\s*([kmg]i?b?)?", re.IGNORECASE)
_SIZE_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_GO_DSN = re.compile(
    r"(?:(?P<user>[^:@]*)(?::(?P<password>.*))?@)?"
    r"(?:(?P<network>\w+)(?:\((?P<address>[^)]*)\))?)?"
    r"/(?P<database>[^?]*)(?:\?(?P<parameters>.*))?"
)
_SECRET_PARAMETER = re.compile(r"(?<=[?&;])(\w*(?:password|secret|token|key)\w*)=[^&;]*", re.IGNORECASE)

MAX_OUTPUT = 4 * 1024 * 1024
"""The maximum of `job_runner.max_output`, which limits stdout and stderr separately, in bytes."""


class ConfigError(InvalidArgumentError):
    """An option has an invalid value, or the configuration file cannot be read. Reason: BAD_CONFIG."""


def _optional_address(text: str) -> Address | None:
    return Address.parse(text) if text else None


def _duration(text: str) -> float:
    return parse_duration(text) / 1e9


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise ValueError("must be a whole number, at least 1")
    return int(text)


def _size(text: str) -> int:
    match = _SIZE.fullmatch(text)
    if match is None or int(match[1]) == 0:
        raise ValueError("must be a size in bytes, such as 1048576 or 1MiB")
    return int(match[1]) * _SIZE_UNITS[(match[2] or "").lower()[:1]]


def _output_size(text: str) -> int:
    size = _size(text)
    if size > MAX_OUTPUT:
        raise ValueError(
            f"must be at most {MAX_OUTPUT} bytes, because each report of a try carries the output"
        )
    return size


def _truth(text: str) -> bool:
    lowered = text.lower()
    if lowered in ("true", "yes", "on", "1"):
        return True
    if lowered in ("false", "no", "off", "0", ""):
        return False
    raise ValueError("must be true or false")


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in (part.strip() for part in text.split(",")) if word)


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return text

    return parse


def _option(
    key: str,
    default: str,
    parse: Callable[[str], Any] = str,
    *,
    variables: tuple[str, ...] | None = None,
    secret: bool = False,
) -> Any:
    """Declares one option.

    Args:
        key: The dotted name in the file.
        default: The default, as text.
        parse: Returns the value of a text. Raises ValueError with a message such as "must be true or false".
        variables: The environment variables. An earlier one overrides a later one. None: derived from `key`.
        secret: The value can contain a password, which is masked when the value is shown.
    """
    if variables is None:
        variables = ("SPINCYCLE_" + key.upper().replace(".", "_"),)
    return field(
        default_factory=lambda: parse(default),
        metadata={"key": key, "parse": parse, "variables": variables, "secret": secret},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All options of all servers. Times are in seconds, sizes in bytes."""

    # The endpoints of this server. If both servers share a process, these are of the Request Manager.
    server_addr: Address | None = _option("server.addr", "", _optional_address)
    server_grpc: Address | None = _option("server.grpc", "", _optional_address)
    server_cert_file: str = _option("server.tls.cert_file", "")
    server_key_file: str = _option("server.tls.key_file", "")
    server_ca_file: str = _option("server.tls.ca_file", "")
    server_max_body: int = _option("server.max_body", "16MiB", _size)
    server_max_bodies: int = _option("server.max_bodies", "256MiB", _size)
    server_max_requests: int = _option("server.max_requests", "500", _count)
    server_call_timeout: float = _option("server.call_timeout", "60s", _duration)
    server_header_timeout: float = _option("server.header_timeout", "10s", _duration)
    server_read_timeout: float = _option("server.read_timeout", "30s", _duration)
    server_idle_timeout: float = _option("server.idle_timeout", "75s", _duration)
    server_max_waiting: int = _option("server.max_waiting", "10000", _count)
    server_max_connections: int = _option("server.max_connections", "4000", _count)
    server_stop_timeout: float = _option("server.stop_timeout", "30s", _duration)
    server_cors_origins: tuple[str, ...] = _option("server.cors_origins", "", _words)
    log_level: str = _option("log.level", "info", _one_of("debug", "info", "warning", "error"))
    log_format: str = _option("log.format", "auto", _one_of("auto", "json", "text"))

    # The Request Manager.
    database_url: str = _option("database.url", "", secret=True)
    database_timeout: float = _option("database.timeout", "5s", _duration)
    database_connections: int = _option("database.connections", "4", _count)
    mysql_dsn: str = _option("mysql.dsn", "", secret=True)
    mysql_cert_file: str = _option("mysql.tls.cert_file", "")
    mysql_key_file: str = _option("mysql.tls.key_file", "")
    mysql_ca_file: str = _option("mysql.tls.ca_file", "")
    specs_dir: str = _option("specs.dir", "specs/")
    auth_admin_roles: tuple[str, ...] = _option("auth.admin_roles", "", _words, variables=())
    auth_strict: bool = _option("auth.strict", "false", _truth, variables=())
    auth_plugin: str = _option("auth.plugin", "", variables=())
    jr_client_url: str = _option("jr_client.url", "")
    jr_client_cert_file: str = _option("jr_client.tls.cert_file", "")
    jr_client_key_file: str = _option("jr_client.tls.key_file", "")
    jr_client_ca_file: str = _option("jr_client.tls.ca_file", "")
    resume_interval: float = _option("resume_interval", "10s", _duration)
    resume_timeout: float = _option("resume_timeout", "1h", _duration)
    jobs_create_timeout: float = _option("jobs.create_timeout", "30s", _duration)

    # Both servers.
    jobs_factory: str = _option("jobs.factory", "", variables=("SPINCYCLE_JOBS", "SPINCYCLE_JOBS_FACTORY"))
    job_runner_lease: float = _option("job_runner.lease", "10s", _duration)

    # The Job Runner. `job_runner.addr` and `.grpc` apply only if both servers share a process.
    rm_client_url: tuple[str, ...] = _option("rm_client.url", "http://127.0.0.1:32308", _words)
    rm_client_grpc: tuple[str, ...] = _option("rm_client.grpc", "", _words)
    rm_client_cert_file: str = _option("rm_client.tls.cert_file", "")
    rm_client_key_file: str = _option("rm_client.tls.key_file", "")
    rm_client_ca_file: str = _option("rm_client.tls.ca_file", "")
    job_runner_addr: Address = _option("job_runner.addr", "127.0.0.1:32307", Address.parse)
    job_runner_grpc: Address | None = _option("job_runner.grpc", "", _optional_address)
    job_runner_advertise: str = _option("job_runner.advertise", "")
    job_runner_max_threads: int = _option("job_runner.max_threads", "64", _count)
    job_runner_max_chains: int = _option("job_runner.max_chains", "10000", _count)
    job_runner_max_jobs: int = _option("job_runner.max_jobs", "200000", _count)
    job_runner_max_output: int = _option("job_runner.max_output", "1MiB", _output_size)
    job_runner_stop_timeout: float = _option("job_runner.stop_timeout", "10s", _duration)

    @property
    def server_tls(self) -> TlsFiles:
        """The files of the server's own certificate."""
        return TlsFiles(self.server_cert_file, self.server_key_file, self.server_ca_file)

    @property
    def jr_client_tls(self) -> TlsFiles:
        """The files for calls to Job Runners."""
        return TlsFiles(self.jr_client_cert_file, self.jr_client_key_file, self.jr_client_ca_file)

    @property
    def rm_client_tls(self) -> TlsFiles:
        """The files for calls to Request Managers."""
        return TlsFiles(self.rm_client_cert_file, self.rm_client_key_file, self.rm_client_ca_file)

    @property
    def request_manager_addresses(self) -> tuple[str, ...]:
        """The gRPC addresses of the Request Managers: `rm_client.grpc`, else derived from `rm_client.url`."""
        return self.rm_client_grpc or tuple(grpc_address_of(url) for url in self.rm_client_url)

    def store_url(self) -> str:
        """Returns the URL of the database: `database.url`, else `mysql.dsn`, else an SQLite file.

        Raises:
            ConfigError: `mysql.dsn` is not a data source name of the Go driver.
        """
        if self.database_url:
            return self.database_url
        return url_of_go_dsn(self.mysql_dsn) if self.mysql_dsn else "sqlite:///spincycle.db"

    def shown(self) -> dict[str, str]:
        """Returns every option with its value as text. Passwords are masked."""
        return {
            option.metadata["key"]: _masked(option, getattr(self, option.name)) for option in fields(self)
        }


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


def _masked(option: Field[Any], value: object) -> str:
    text = ", ".join(value) if isinstance(value, tuple) else "" if value is None else str(value)
    return mask_secrets(text) if option.metadata["secret"] or "://" in text else text


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
    return socket.gethostname() if address.host in ("0.0.0.0", "::", "") else address.host  # noqa: S104


def _flatten(document: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in document.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{path}.")
        elif isinstance(value, list):
            yield path, ",".join(str(part) for part in value)
        elif value is not None:
            yield path, value if isinstance(value, str) else str(value)


def _read_file(path: Path) -> dict[str, str]:
    try:
        # BaseLoader keeps scalars as text. Each option parses its own.
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)  # noqa: S506
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", reason="BAD_CONFIG") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" in line {where.line + 1}" if where else ""
        raise ConfigError(f"{path} is not valid YAML{line}", reason="BAD_CONFIG") from error
    if document in (None, ""):
        return {}
    if not isinstance(document, dict):
        raise ConfigError(f"{path} must contain a map of options", reason="BAD_CONFIG")
    return dict(_flatten(document))


def _file_to_read(argument: str | None, environment: Mapping[str, str]) -> Path | None:
    if argument is not None:
        return Path(argument)
    path = Path("config") / f"{environment.get('ENVIRONMENT', 'development')}.yaml"
    return path if path.exists() else None


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
        ConfigError: The file, the name of an option or its value is invalid. The message names it.
    """
    environment = os.environ if environment is None else environment
    options: dict[str, Field[Any]] = {option.metadata["key"]: option for option in fields(Config)}
    given = {
        **_from_file(_file_to_read(file, environment), options),
        **_from_environment(environment, options),
        **{key: (text, "command line") for key, text in (overrides or {}).items() if text is not None},
    }
    return Config(**{options[key].name: _parsed(options[key], *value) for key, value in given.items()})


def _from_file(path: Path | None, options: Collection[str]) -> dict[str, tuple[str, str]]:
    """Returns the text and the source of each option in a file."""
    if path is None:
        return {}
    texts = _read_file(path)
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
