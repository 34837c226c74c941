"""Assembles the authentication of a server: its users, and the other servers of the installation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from spincycle_server.app.background import run_in_background
from spincycle_server.config import Config, ConfigError
from spincycle_server.identity import Authentication, AuthenticationMethod, Cluster
from spincycle_server.identity.access import AccessLists
from spincycle_server.identity.certificate_trust import CertificateTrust
from spincycle_server.identity.certificates import CertificateMethod
from spincycle_server.identity.key_file import KeyFile, new_key
from spincycle_server.identity.permissions import Permissions
from spincycle_server.identity.plugin import PluginMethod, load_authenticator
from spincycle_server.identity.tokens import ElsewhereTokenMethod, TokenMethod
from spincycle_server.listening import Address, TlsFiles
from spincycle_server.specs.model import Specs

if TYPE_CHECKING:
    from spincycle_server.store import Store  # Job Runners do not load the libraries of databases.


async def authentication_of(
    config: Config,
    cluster: Cluster,
    stack: contextlib.AsyncExitStack,
    store: Store | None = None,
    *,
    trust: CertificateTrust | None = None,
) -> Authentication:
    """Returns the authentication that the options describe.

    The methods are asked in the order of `auth.methods`, and the plugin last.

    Args:
        config: The options.
        cluster: Recognizes the other servers of the installation.
        stack: Ends the background tasks of the methods when it closes.
        store: The database; None on a Job Runner.
        trust: Knows whether client certificates are still valid.

    Raises:
        SpinCycleError: An option of a method of authentication is invalid.
    """
    methods = [await _method(name, config, stack, store) for name in config.auth_methods]
    if config.auth_plugin:
        methods.append(PluginMethod(load_authenticator(config.auth_plugin), config.auth_timeout))
    if config.auth_read == "acl" and not methods:
        raise ConfigError(
            "option auth.read: acl needs auth.methods or auth.plugin, because unknown callers have no roles"
        )
    return Authentication(methods, cluster, admin_roles=config.auth_admin_roles, trust=trust)


async def _method(
    name: str, config: Config, stack: contextlib.AsyncExitStack, store: Store | None
) -> AuthenticationMethod:
    if name == "certificate":
        return CertificateMethod(
            config.auth_certificates_name, config.auth_certificates_roles, config.cluster_certificates
        )
    if name == "token":
        return await _tokens(stack, store)
    raise ConfigError(f"option auth.methods: {name} is not supported")


async def _tokens(stack: contextlib.AsyncExitStack, store: Store | None) -> AuthenticationMethod:
    if store is None:
        return ElsewhereTokenMethod()
    method = TokenMethod(store.look_at_tokens)
    await method.look()
    run_in_background(stack, "tokens", method.run())
    return method


def combined_cluster(config: Config) -> Cluster:
    """Returns the cluster of a Request Manager and a Job Runner that share a process.

    Without a key of its own, the process makes one: nobody else can know it.

    Raises:
        SpinCycleError: The key cannot be read.
    """
    if config.cluster_open:
        return Cluster(is_open=True)
    if config.cluster_key_file:
        return _closed(config)
    keys = (new_key(),)
    return Cluster(keys=lambda: keys, certificates=config.cluster_certificates)


def separate_cluster(config: Config, addresses: Iterable[Address], outgoing: TlsFiles) -> Cluster:
    """Returns the cluster of a server that runs by itself.

    Without any option, the server is open on loopback, as the original is.

    Args:
        config: The options.
        addresses: The addresses on which the server listens.
        outgoing: The TLS files of calls to other servers.

    Raises:
        SpinCycleError: The server must know the other servers, but no option says how, or the key would be
            sent in plain text.
    """
    if config.cluster_open:
        return Cluster(is_open=True)
    listens_beyond_loopback = any(not address.is_loopback for address in addresses)
    if not (config.cluster_key_file or config.cluster_certificates):
        if users_are_authenticated(config) or listens_beyond_loopback:
            why = (
                "users are authenticated"
                if users_are_authenticated(config)
                else "this server listens beyond loopback"
            )
            raise ConfigError(
                f"option cluster.key_file: must be set, because {why}: give all servers of the installation "
                "the same key, list their certificates in cluster.certificates, or set cluster.open to true"
            )
        return Cluster(is_open=True)
    if config.cluster_key_file and listens_beyond_loopback and not config.server_tls:
        raise ConfigError(
            "option cluster.key_file: other servers would send the key in plain text: "
            "set server.tls.cert_file and server.tls.key_file, or listen on loopback"
        )
    if config.cluster_certificates and not config.cluster_key_file and not outgoing.cert_file:
        raise ConfigError(
            "option cluster.certificates: this server needs a certificate for its calls to other servers: "
            "set rm_client.tls.* for a Job Runner, jr_client.tls.* for a Request Manager"
        )
    return _closed(config)


def users_are_authenticated(config: Config) -> bool:
    """Whether an option turns on the authentication of users."""
    return bool(config.auth_methods or config.auth_plugin)


def _closed(config: Config) -> Cluster:
    keys = KeyFile(config.cluster_key_file) if config.cluster_key_file else tuple
    return Cluster(keys=keys, certificates=config.cluster_certificates)


def permissions_of(config: Config, specs: Specs, authentication: Authentication) -> Permissions:
    """Returns what callers may do, by the access lists of the specs and by the plugin."""
    lists = AccessLists(specs, admin_roles=config.auth_admin_roles, strict=config.auth_strict)
    return Permissions(lists, authentication.second_check, reads_follow_lists=config.auth_read == "acl")
