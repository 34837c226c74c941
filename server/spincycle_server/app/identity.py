"""Assembles the authentication of a server's users, and what they may do."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from spincycle_server.app.background import run_in_background
from spincycle_server.config import Config, ConfigError
from spincycle_server.identity import Authentication, AuthenticationMethod, Cluster
from spincycle_server.identity.access import AccessLists
from spincycle_server.identity.certificate_trust import CertificateTrust
from spincycle_server.identity.certificates import CertificateMethod
from spincycle_server.identity.permissions import Permissions
from spincycle_server.identity.plugin import PluginMethod, load_authenticator
from spincycle_server.identity.tokens import ElsewhereTokenMethod, TokenMethod
from spincycle_server.request_manager.approvers import check_approvers
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
    if config.auth_oidc_issuer and "oidc" not in config.auth_methods:
        raise ConfigError("option auth.oidc.issuer: has no effect without oidc in auth.methods")
    if config.auth_certificates_roles and "certificate" not in config.auth_methods:
        raise ConfigError("option auth.certificates.roles: has no effect without certificate in auth.methods")
    methods = [await _method(name, config, stack, store) for name in config.auth_methods]
    if config.auth_plugin:
        methods.append(PluginMethod(load_authenticator(config.auth_plugin), config.auth_timeout))
    if config.auth_read == "acl" and not methods:
        raise ConfigError(
            "option auth.read: acl needs auth.methods or auth.plugin, because unknown callers have no roles"
        )
    return Authentication(
        methods,
        cluster,
        admin_roles=config.auth_admin_roles,
        metrics_roles=config.auth_metrics_roles,
        trust=trust,
    )


async def _method(
    name: str, config: Config, stack: contextlib.AsyncExitStack, store: Store | None
) -> AuthenticationMethod:
    if name == "certificate":
        return CertificateMethod(
            config.auth_certificates_name, config.auth_certificates_roles, config.cluster_certificates
        )
    if name == "token":
        return await _tokens(stack, store)
    if name == "oidc":
        from spincycle_server.app.oidc import oidc_method

        return oidc_method(config, stack)
    raise ConfigError(f"option auth.methods: {name} is not supported")


async def _tokens(stack: contextlib.AsyncExitStack, store: Store | None) -> AuthenticationMethod:
    if store is None:
        return ElsewhereTokenMethod()
    method = TokenMethod(store.look_at_tokens)
    await method.look()
    run_in_background(stack, "tokens", method.run())
    return method


def users_are_authenticated(config: Config) -> bool:
    """Whether an option turns on the authentication of users."""
    return bool(config.auth_methods or config.auth_plugin)


def permissions_of(config: Config, specs: Specs, authentication: Authentication) -> Permissions:
    """Returns what callers may do, by the access lists of the specs and by the plugin.

    Raises:
        FailedPreconditionError: See `access_lists_of`.
    """
    return Permissions(
        access_lists_of(config, specs),
        authentication.second_check,
        reads_follow_lists=config.auth_read == "acl",
    )


def access_lists_of(config: Config, specs: Specs) -> AccessLists:
    """Returns the access lists of specs.

    Raises:
        FailedPreconditionError: The specs have approvals, and users are not authenticated. Reason:
            NEEDS_AUTHENTICATION.
    """
    check_approvers(specs, is_authenticated=users_are_authenticated(config))
    return AccessLists(specs, admin_roles=config.auth_admin_roles, strict=config.auth_strict)
