"""The configuration of the servers: one table of options, from a file, the environment and the command line.

The later source stands above the earlier one: defaults, YAML file, environment variables,
command line. The file's options and their environment names are the original's; what is
added here follows the same rule (`jobs.create_timeout` is SPINCYCLE_JOBS_CREATE_TIMEOUT).
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping
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
"""The most that can be kept of each output of a job."""


class ConfigError(InvalidArgumentError):
    """An option has a value that cannot be used, or the file cannot be read."""


def _optional_address(text: str) -> Address | None:
    return Address.parse(text) if text else None


def _duration(text: str) -> float:
    return parse_duration(text) / 1e9


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise ValueError("must be a whole number from 1")
    return int(text)


def _size(text: str) -> int:
    match = _SIZE.fullmatch(text)
    if match is None or int(match[1]) == 0:
        raise ValueError("must be a size in bytes, as 1048576 or 1MiB")
    return int(match[1]) * _SIZE_UNITS[(match[2] or "").lower()[:1]]


def _output_size(text: str) -> int:
    size = _size(text)
    if size > MAX_OUTPUT:
        raise ValueError(f"must be at most {MAX_OUTPUT} bytes, so that reports of tries stay small")
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
        key: Its dotted name in the file.
        default: Its default, as it would be written.
        parse: Makes the value from the text, or raises ValueError with what it must be.
        variables: Its environment variables, the strongest first; None: the one made from the key.
        secret: The value may hold a password, to be masked when shown.
    """
    if variables is None:
        variables = ("SPINCYCLE_" + key.upper().replace(".", "_"),)
    return field(
        default_factory=lambda: parse(default),
        metadata={"key": key, "parse": parse, "variables": variables, "secret": secret},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All options of all servers; each server reads its own. Times are in seconds, sizes in bytes."""

    # Where this server listens. With both servers in one process, the Request Manager.
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

    # What the Request Manager needs.
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

    # What both need.
    jobs_factory: str = _option("jobs.factory", "", variables=("SPINCYCLE_JOBS", "SPINCYCLE_JOBS_FACTORY"))
    job_runner_lease: float = _option("job_runner.lease", "10s", _duration)

    # What the Job Runner needs. `job_runner.addr` and `.grpc` count where both servers share a process.
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
        """The server's own certificate."""
        return TlsFiles(self.server_cert_file, self.server_key_file, self.server_ca_file)

    @property
    def jr_client_tls(self) -> TlsFiles:
        """For calls to Job Runners."""
        return TlsFiles(self.jr_client_cert_file, self.jr_client_key_file, self.jr_client_ca_file)

    @property
    def rm_client_tls(self) -> TlsFiles:
        """For calls to Request Managers."""
        return TlsFiles(self.rm_client_cert_file, self.rm_client_key_file, self.rm_client_ca_file)

    @property
    def request_manager_addresses(self) -> tuple[str, ...]:
        """The gRPC addresses of the Request Managers: `rm_client.grpc`, or else made from `rm_client.url`."""
        return self.rm_client_grpc or tuple(grpc_address_of(url) for url in self.rm_client_url)

    def store_url(self) -> str:
        """The address of the database: `database.url`, or `mysql.dsn`, or an SQLite file in this directory.

        Raises:
            ConfigError: `mysql.dsn` is not in the form that the Go driver takes.
        """
        if self.database_url:
            return self.database_url
        return url_of_go_dsn(self.mysql_dsn) if self.mysql_dsn else "sqlite:///spincycle.db"

    def shown(self) -> dict[str, str]:
        """Every option and its value as text, passwords masked."""
        return {
            option.metadata["key"]: _masked(option, getattr(self, option.name)) for option in fields(self)
        }


def mask_secrets(address: str) -> str:
    """Returns a URL or a Go data source name with the password in it masked.

    All between the first colon of the user's part and the last @ counts as password, so that
    one with unescaped signs in it is masked whole.
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
    """The gRPC address of a server from the URL of its HTTP side.

    Raises:
        ConfigError: It is no http or https URL.
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
    """Turns `user:password@tcp(host:3306)/database?params` into a URL; the parameters are for Go alone.

    Raises:
        ConfigError: It has another form. The message does not show the value, which holds a password.
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
    """The host that others reach this server under: the override, the address, or this machine's name."""
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
        # BaseLoader keeps scalars as they are written: options do their own reading.
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
        raise ConfigError(f"{path} must be a map of options", reason="BAD_CONFIG")
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
        file: The YAML file, which must exist; None: `config/$ENVIRONMENT.yaml`, which may be missing.
        environment: The environment variables; None: the process's.
        overrides: Options of the command line by their dotted names; None values are not given.

    Raises:
        ConfigError: A file, an option's name or its value cannot be used; the message says which.
    """
    environment = os.environ if environment is None else environment
    path = _file_to_read(file, environment)
    given = {key: (text, str(path)) for key, text in (_read_file(path) if path else {}).items()}
    options: dict[str, Field[Any]] = {option.metadata["key"]: option for option in fields(Config)}
    unknown = sorted(set(given) - set(options))
    if unknown:
        raise ConfigError(f"{path}: unknown option {unknown[0]}", reason="BAD_CONFIG")
    for key, option in options.items():
        for variable in reversed(option.metadata["variables"]):
            if environment.get(variable):
                given[key] = (environment[variable], variable)
    for key, value in (overrides or {}).items():
        if value is not None:
            given[key] = (value, "command line")
    values: dict[str, Any] = {}
    for key, (text, source) in given.items():
        option = options[key]
        try:
            values[option.name] = option.metadata["parse"](text)
        except ValueError as error:
            shown = "" if option.metadata["secret"] else f" {text!r}:"
            raise ConfigError(f"option {key} ({source}):{shown} {error}", reason="BAD_CONFIG") from error
    return Config(**values)
