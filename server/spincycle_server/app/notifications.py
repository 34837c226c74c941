"""Assembles the notifications of a Request Manager: reads the secrets, and loads them again on SIGHUP."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from functools import partial
from pathlib import Path

import structlog

from spincycle_grpc.loopback import is_loopback_host
from spincycle_server.app.background import run_in_background
from spincycle_server.app.reloads import Reloads
from spincycle_server.app.telemetry import REQUEST_MANAGER, ProcessTelemetry
from spincycle_server.config import Config, ConfigError
from spincycle_server.config.notification_targets import TargetOptions
from spincycle_server.notifications.notifier import Notifier
from spincycle_server.notifications.signing import key_of
from spincycle_server.notifications.targets import Target, Targets, is_allowed
from spincycle_server.plain_http import NotReachedError, checked_url
from spincycle_server.store import Store

logger = structlog.get_logger(__name__)

_MAX_SECRETS = 2
"""Secrets of a target at a time: the new one and the old one, while receivers change to the new one."""

_ROUTING_KEY = re.compile("[0-9A-Za-z]{32}")


def start_notifications(
    config: Config,
    store: Store,
    reloads: Reloads,
    stack: contextlib.AsyncExitStack,
    telemetry: ProcessTelemetry,
) -> Notifier:
    """Starts to send notifications, until the stack closes. Returns what sends them.

    Raises:
        ConfigError: A target is invalid, or a file cannot be read.
    """
    targets = Targets()
    if config.notifications_targets:
        targets.use(targets_of(config), allowed_hosts(config))
        reloads.add("notifications", partial(_reload, config, targets))
    public_url = config.server_public_url if config.server_web else ""
    notifier = Notifier(targets, store, public_url, config.server_workers)
    if config.notifications_targets:
        notifier.add_to(telemetry.servers[REQUEST_MANAGER].metrics)
    run_in_background(stack, "notifications", notifier.run())
    return notifier


async def _reload(config: Config, targets: Targets) -> None:
    targets.use(await asyncio.to_thread(targets_of, config), allowed_hosts(config))
    logger.info("notifications reloaded", targets=len(targets.names))


def allowed_hosts(config: Config) -> frozenset[str]:
    """Returns the hosts to which notifications may be sent."""
    return frozenset(host.lower() for host in config.notifications_allowed_hosts)


def targets_of(config: Config) -> list[Target]:
    """Returns the targets, with the secrets in their files as they are now.

    Raises:
        ConfigError: A target is invalid, or a file cannot be read. The message shows no secret.
    """
    tls = _tls(config.notifications_ca_file)
    hosts = allowed_hosts(config)
    return [_target_of(name, options, hosts, tls) for name, options in config.notifications_targets.items()]


def _tls(ca_file: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:
        raise ConfigError(
            f"option notifications.ca_file: {ca_file} cannot be used: "
            f"{error.strerror or 'it contains no certificate'}"
        ) from error


def _target_of(name: str, options: TargetOptions, hosts: frozenset[str], tls: ssl.SSLContext) -> Target:
    option = f"option notifications.targets: {name}"
    url = options.url or _lines(f"{option}: url_file", options.url_file, 1)[0]
    host = _checked_host(option, url, options, hosts)
    file = options.secret_file
    secrets = _lines(f"{option}: secret_file", file, _MAX_SECRETS) if file else []
    return Target(
        name=name,
        url=url,
        host=host,
        format=options.format,
        events=options.events,
        types=options.types,
        args=options.args,
        shows_errors=options.shows_errors,
        keys=_keys(option, secrets, file) if options.format == "json" else (),
        routing_key=_routing_key(option, secrets, file) if options.format == "pagerduty" else "",
        tls=tls,
    )


def _keys(option: str, secrets: list[str], file: str) -> tuple[bytes, ...]:
    try:
        return tuple(key_of(secret) for secret in secrets)
    except ValueError as error:
        raise ConfigError(f"{option}: secret_file: each line of {file} {error}") from None


def _routing_key(option: str, secrets: list[str], file: str) -> str:
    if len(secrets) != 1 or not _ROUTING_KEY.fullmatch(secrets[0]):
        raise ConfigError(
            f"{option}: secret_file: {file} must have one line with the integration key of PagerDuty: "
            "32 letters and digits"
        )
    return secrets[0]


def _checked_host(option: str, url: str, options: TargetOptions, hosts: frozenset[str]) -> str:
    """Returns the host of a URL."""
    try:
        parts = checked_url(url)
    except NotReachedError:
        raise ConfigError(f"{option}: the URL must be one of HTTPS without a password") from None
    host = parts.hostname or ""
    if parts.scheme == "http" and not (options.allows_http or is_loopback_host(host)):
        raise ConfigError(
            f"{option}: the URL must be one of HTTPS, because others could read the notifications "
            "(allow_http: true allows it)"
        )
    if not is_allowed(host, hosts):
        raise ConfigError(f"{option}: add {host} to notifications.allowed_hosts to send anything there")
    return host


def _lines(option: str, file: str, most: int) -> list[str]:
    """Returns the lines of a file with secrets, of which there may be at most `most`."""
    try:
        text = Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{option}: cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ConfigError(f"{option}: {file} is not UTF-8 text") from None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not 0 < len(lines) <= most:
        raise ConfigError(f"{option}: {file} must have {'one line' if most == 1 else f'one to {most} lines'}")
    return lines
