"""The table of options: each option's name, default and type.

The original's options and environment variables keep their names. New options follow the original's rule:
`jobs.create_timeout` is SPINCYCLE_JOBS_CREATE_TIMEOUT.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any

from spincycle_server.config.addresses import grpc_address_of, mask_secrets, url_of_go_dsn
from spincycle_server.config.notification_targets import TargetOptions, parse_targets
from spincycle_server.config.secret_files import secret_of
from spincycle_server.config.values import (
    label_of,
    parse_chain_count,
    parse_collector_url,
    parse_count,
    parse_crash_count,
    parse_labels,
    parse_one_of,
    parse_optional_address,
    parse_origin,
    parse_output_size,
    parse_ratio,
    parse_roles,
    parse_seconds,
    parse_session_lifetime,
    parse_size,
    parse_truth,
    parse_words,
    parse_words_of,
    parse_worker_count,
)
from spincycle_server.listening import Address, TlsFiles

VARIABLE_PREFIX = "SPINCYCLE_"
"""The names of all environment variables of the servers start with this. Jobs do not inherit them."""


ASYMMETRIC_ALGORITHMS = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519",
)  # fmt: skip
"""The algorithms that sign with a private key. Only their signatures show who has made them."""


def variable_of(key: str) -> str:
    """Returns the environment variable of an option by the rule. Not every option has it."""
    return VARIABLE_PREFIX + key.upper().replace(".", "_")


def _option(
    key: str,
    default: str,
    parse: Callable[[str], Any] = str,
    *,
    variables: tuple[str, ...] | None = None,
    secret: bool = False,
    is_map: bool = False,
) -> Any:
    """Declares one option.

    Args:
        key: The dotted name in the file.
        default: The default, as text.
        parse: Returns the value of a text. Raises ValueError with a message such as "must be true or false".
        variables: The environment variables. An earlier one overrides a later one. None: derived from `key`.
        secret: The value can contain a password, which is masked when the value is shown.
        is_map: The file gives a map, whose keys are not options. `parse` gets it as JSON.
    """
    if variables is None:
        variables = (variable_of(key),)
    return field(
        default_factory=lambda: parse(default),
        metadata={"key": key, "parse": parse, "variables": variables, "secret": secret, "is_map": is_map},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All options of all servers. Times are in seconds, sizes in bytes."""

    # The endpoints of this server. If both servers share a process, these are of the Request Manager.
    server_addr: Address | None = _option("server.addr", "", parse_optional_address)
    server_grpc: Address | None = _option("server.grpc", "", parse_optional_address)
    server_cert_file: str = _option("server.tls.cert_file", "")
    server_key_file: str = _option("server.tls.key_file", "")
    server_ca_file: str = _option("server.tls.ca_file", "")
    server_client_auth: str = _option(
        "server.tls.client_auth", "none", parse_one_of("none", "request", "require")
    )
    server_grpc_client_auth: str = _option(
        "server.tls.grpc_client_auth", "", parse_one_of("", "none", "require")
    )
    server_max_body: int = _option("server.max_body", "16MiB", parse_size)
    server_max_bodies: int = _option("server.max_bodies", "256MiB", parse_size)
    server_max_values: int = _option("server.max_values", "500000", parse_count)
    server_max_requests: int = _option("server.max_requests", "500", parse_count)
    server_max_followers: int = _option("server.max_followers", "500", parse_count)
    server_call_timeout: float = _option("server.call_timeout", "60s", parse_seconds)
    server_header_timeout: float = _option("server.header_timeout", "10s", parse_seconds)
    server_read_timeout: float = _option("server.read_timeout", "30s", parse_seconds)
    server_idle_timeout: float = _option("server.idle_timeout", "75s", parse_seconds)
    grpc_max_concurrent_streams: int = _option("grpc.max_concurrent_streams", "1000", parse_count)
    server_max_waiting: int = _option("server.max_waiting", "10000", parse_count)
    server_max_blocked: int = _option("server.max_blocked", "10000", parse_count)
    server_max_watchers: int = _option("server.max_watchers", "5000", parse_count)
    server_max_connections: int = _option("server.max_connections", "4000", parse_count)
    server_workers: int = _option("server.workers", "1", parse_worker_count)
    server_stop_timeout: float = _option("server.stop_timeout", "30s", parse_seconds)
    server_metrics: Address | None = _option("server.metrics", "", parse_optional_address)
    server_cors_origins: tuple[str, ...] = _option("server.cors_origins", "", parse_words)
    server_web: bool = _option("server.web", "true", parse_truth)
    server_hosts: tuple[str, ...] = _option("server.hosts", "", parse_words)
    server_public_url: str = _option("server.public_url", "", parse_origin)
    log_level: str = _option("log.level", "info", parse_one_of("debug", "info", "warning", "error"))
    log_format: str = _option("log.format", "auto", parse_one_of("auto", "json", "text"))

    telemetry_otlp: str = _option("telemetry.otlp", "", parse_collector_url, secret=True)
    telemetry_otlp_headers_file: str = _option("telemetry.otlp_headers_file", "")
    telemetry_otlp_ca_file: str = _option("telemetry.otlp_ca_file", "")
    telemetry_sample_ratio: float = _option("telemetry.sample_ratio", "1", parse_ratio)

    # The Request Manager.
    database_url: str = _option("database.url", "", secret=True)
    database_url_file: str = _option("database.url_file", "")
    database_schema: str = _option("database.schema", "")
    database_timeout: float = _option("database.timeout", "5s", parse_seconds)
    database_connections: int = _option("database.connections", "4", parse_count)
    mysql_dsn: str = _option("mysql.dsn", "", secret=True)
    mysql_dsn_file: str = _option("mysql.dsn_file", "")
    mysql_cert_file: str = _option("mysql.tls.cert_file", "")
    mysql_key_file: str = _option("mysql.tls.key_file", "")
    mysql_ca_file: str = _option("mysql.tls.ca_file", "")
    specs_dir: str = _option("specs.dir", "specs/")
    specs_strict_args: bool = _option("specs.strict_args", "false", parse_truth)
    auth_admin_roles: tuple[str, ...] = _option("auth.admin_roles", "", parse_words, variables=())
    auth_strict: bool = _option("auth.strict", "false", parse_truth, variables=())
    auth_plugin: str = _option("auth.plugin", "", variables=())
    auth_timeout: float = _option("auth.timeout", "5s", parse_seconds, variables=())
    auth_read: str = _option("auth.read", "all", parse_one_of("all", "acl"), variables=())
    jr_client_url: str = _option("jr_client.url", "")
    jr_client_cert_file: str = _option("jr_client.tls.cert_file", "")
    jr_client_key_file: str = _option("jr_client.tls.key_file", "")
    jr_client_ca_file: str = _option("jr_client.tls.ca_file", "")
    notifications_allowed_hosts: tuple[str, ...] = _option("notifications.allowed_hosts", "", parse_words)
    notifications_ca_file: str = _option("notifications.ca_file", "")
    notifications_targets: Mapping[str, TargetOptions] = _option(
        "notifications.targets", "", parse_targets, variables=(), secret=True, is_map=True
    )
    resume_interval: float = _option("resume_interval", "10s", parse_seconds)
    resume_timeout: float = _option("resume_timeout", "1h", parse_seconds)
    jobs_create_timeout: float = _option("jobs.create_timeout", "30s", parse_seconds)

    # Both servers.
    auth_methods: tuple[str, ...] = _option(
        "auth.methods", "", parse_words_of("token", "oidc", "certificate")
    )
    auth_certificates_name: str = _option(
        "auth.certificates.name",
        "common_name",
        parse_one_of("common_name", "dns", "email", "uri"),
        variables=(),
    )
    auth_certificates_roles: Mapping[str, frozenset[str]] = _option(
        "auth.certificates.roles", "", parse_roles, variables=(), is_map=True
    )
    auth_metrics_roles: tuple[str, ...] = _option("auth.metrics_roles", "", parse_words, variables=())
    auth_oidc_issuer: str = _option("auth.oidc.issuer", "")
    auth_oidc_audience: tuple[str, ...] = _option("auth.oidc.audience", "", parse_words)
    auth_oidc_algorithms: tuple[str, ...] = _option(
        "auth.oidc.algorithms", "RS256, ES256", parse_words_of(*ASYMMETRIC_ALGORITHMS)
    )
    auth_oidc_leeway: float = _option("auth.oidc.leeway", "3s", parse_seconds)
    auth_oidc_name_claim: str = _option("auth.oidc.name_claim", "sub")
    auth_oidc_roles_claim: str = _option("auth.oidc.roles_claim", "roles")
    auth_oidc_ca_file: str = _option("auth.oidc.ca_file", "")
    auth_oidc_client_id: str = _option("auth.oidc.client_id", "")
    auth_oidc_client_secret_file: str = _option("auth.oidc.client_secret_file", "")
    auth_oidc_scopes: tuple[str, ...] = _option("auth.oidc.scopes", "profile, email", parse_words)
    auth_session_lifetime: float = _option("auth.session_lifetime", "12h", parse_session_lifetime)
    cluster_key_file: str = _option("cluster.key_file", "")
    cluster_certificates: tuple[str, ...] = _option("cluster.certificates", "", parse_words)
    cluster_listen: Address | None = _option("cluster.listen", "", parse_optional_address)
    cluster_open: bool = _option("cluster.open", "false", parse_truth)
    jobs_factory: str = _option("jobs.factory", "", variables=("SPINCYCLE_JOBS", "SPINCYCLE_JOBS_FACTORY"))
    job_runner_lease: float = _option("job_runner.lease", "10s", parse_seconds)

    # The Job Runner. `job_runner.addr` and `.grpc` apply only if both servers share a process.
    rm_client_url: tuple[str, ...] = _option("rm_client.url", "http://127.0.0.1:32308", parse_words)
    rm_client_grpc: tuple[str, ...] = _option("rm_client.grpc", "", parse_words)
    rm_client_cert_file: str = _option("rm_client.tls.cert_file", "")
    rm_client_key_file: str = _option("rm_client.tls.key_file", "")
    rm_client_ca_file: str = _option("rm_client.tls.ca_file", "")
    job_runner_addr: Address = _option("job_runner.addr", "127.0.0.1:32307", Address.parse)
    job_runner_grpc: Address | None = _option("job_runner.grpc", "", parse_optional_address)
    job_runner_advertise: str = _option("job_runner.advertise", "")
    job_runner_labels: tuple[str, ...] = _option("job_runner.labels", "", parse_labels)
    job_runner_max_threads: int = _option("job_runner.max_threads", "64", parse_count)
    job_runner_max_chains: int = _option("job_runner.max_chains", "10000", parse_chain_count)
    job_runner_max_jobs: int = _option("job_runner.max_jobs", "200000", parse_count)
    job_runner_max_output: int = _option("job_runner.max_output", "1MiB", parse_output_size)
    job_runner_max_crashes: int = _option("job_runner.max_crashes", "3", parse_crash_count)
    job_runner_suspect_turn: float = _option("job_runner.suspect_turn", "5s", parse_seconds)
    job_runner_stop_timeout: float = _option("job_runner.stop_timeout", "10s", parse_seconds)

    @property
    def server_tls(self) -> TlsFiles:
        """The files of the server's own certificate."""
        return TlsFiles(self.server_cert_file, self.server_key_file, self.server_ca_file)

    @property
    def jr_client_tls(self) -> TlsFiles:
        """The files for calls to Job Runners."""
        return TlsFiles(
            self.jr_client_cert_file, self.jr_client_key_file, self.jr_client_ca_file, "jr_client.tls"
        )

    @property
    def rm_client_tls(self) -> TlsFiles:
        """The files for calls to Request Managers."""
        return TlsFiles(
            self.rm_client_cert_file, self.rm_client_key_file, self.rm_client_ca_file, "rm_client.tls"
        )

    @property
    def request_manager_addresses(self) -> tuple[str, ...]:
        """The gRPC addresses of the Request Managers: `rm_client.grpc`, else derived from `rm_client.url`."""
        return self.rm_client_grpc or tuple(grpc_address_of(url) for url in self.rm_client_url)

    @property
    def runner_labels(self) -> dict[str, str]:
        """The labels of the Job Runner."""
        return dict(label_of(word) for word in self.job_runner_labels)

    def store_url(self) -> str:
        """Returns the URL of the database: `database.url`, else `mysql.dsn`, else an SQLite file.

        It reads `database.url_file` and `mysql.dsn_file`. So a Job Runner, which does not need the database,
        need not be allowed to read them.

        Raises:
            ConfigError: `mysql.dsn` is not a data source name of the Go driver, a file cannot be read, or an
                option is set together with its file.
        """
        url = secret_of("database.url", self.database_url, self.database_url_file)
        dsn = secret_of("mysql.dsn", self.mysql_dsn, self.mysql_dsn_file)
        return url or (url_of_go_dsn(dsn) if dsn else "sqlite:///spincycle.db")

    def shown(self) -> dict[str, str]:
        """Returns every option with its value as text. Passwords are masked."""
        return {
            option.metadata["key"]: _masked(option, getattr(self, option.name)) for option in fields(self)
        }


def _masked(option: Field[Any], value: object) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {_part_text(part)}" for name, part in value.items())
    text = ", ".join(value) if isinstance(value, tuple) else "" if value is None else str(value)
    return mask_secrets(text) if option.metadata["secret"] or "://" in text else text


def _part_text(part: object) -> str:
    return ", ".join(sorted(part)) if isinstance(part, frozenset) else str(part)
