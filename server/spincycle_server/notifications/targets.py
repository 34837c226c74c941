"""The targets of notifications: where events are sent, and which."""

from __future__ import annotations

import ssl
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where events are sent, and which.

    Attributes:
        name: Its name.
        url: The URL. It can contain a secret.
        host: The host of the URL, in lower case.
        format: "json", "slack" or "pagerduty".
        events: The events that it wants.
        types: The types of requests whose events it wants; empty for all.
        args: The args of requests that it gets.
        shows_errors: Whether it gets the last lines of jobs' errors.
        keys: The keys that sign the bodies of "json", the newest first.
        routing_key: The integration key of "pagerduty".
        tls: How HTTPS checks the receiver; None for the CAs of the system.
    """

    name: str
    url: str = field(repr=False)
    host: str
    format: str
    events: frozenset[str]
    types: frozenset[str] = frozenset()
    args: tuple[str, ...] = ()
    shows_errors: bool = True
    keys: tuple[bytes, ...] = field(default=(), repr=False)
    routing_key: str = field(default="", repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False)

    def wants(self, event: str, request_type: str) -> bool:
        """Whether it wants an event of a request of a type."""
        return event in self.events and (not self.types or request_type in self.types)


class Targets:
    """The targets, which can be replaced. Several threads may ask.

    Args:
        targets: The targets.
        allowed_hosts: The hosts to which anything may be sent, in lower case.
    """

    def __init__(self, targets: Iterable[Target] = (), allowed_hosts: Collection[str] = ()) -> None:
        self._targets: Mapping[str, Target] = MappingProxyType({})
        self._allowed_hosts: Collection[str] = ()
        self.use(targets, allowed_hosts)

    def use(self, targets: Iterable[Target], allowed_hosts: Collection[str]) -> None:
        """Replaces the targets, for example because a secret has changed."""
        self._allowed_hosts = frozenset(allowed_hosts)
        self._targets = MappingProxyType({target.name: target for target in targets})

    @property
    def names(self) -> Sequence[str]:
        """Their names, in order."""
        return sorted(self._targets)

    def get(self, name: str) -> Target | None:
        """Returns a target; None if there is none with this name."""
        return self._targets.get(name)

    def wanted_by(self, event: str, request_type: str) -> Sequence[str]:
        """Returns the names of the targets that want an event."""
        return [target.name for target in self._targets.values() if target.wants(event, request_type)]

    def allows(self, host: str) -> bool:
        """Whether anything may be sent to a host."""
        return is_allowed(host, self._allowed_hosts)


def is_allowed(host: str, allowed: Collection[str]) -> bool:
    """Whether a host is in a list. A name that begins with "*." stands for all names with one more label."""
    return host in allowed or f"*.{host.partition('.')[2]}" in allowed
