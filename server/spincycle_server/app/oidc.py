"""Assembles the authentication of users by an OIDC provider."""

from __future__ import annotations

import contextlib

from spincycle_server.app.background import run_in_background
from spincycle_server.config import Config, ConfigError
from spincycle_server.identity import AuthenticationMethod
from spincycle_server.identity.oidc import OidcMethod, OidcSettings
from spincycle_server.identity.oidc_documents import is_trustworthy, tls_context
from spincycle_server.identity.oidc_keys import OidcKeys

_LONGEST_LEEWAY = 300
"""The maximum of `auth.oidc.leeway` in seconds."""


def oidc_method(config: Config, stack: contextlib.AsyncExitStack) -> AuthenticationMethod:
    """Returns the method of authentication for tokens of the OIDC provider.

    The provider may be away: its keys are read in the background.

    Args:
        config: The options.
        stack: Ends the background task when it closes.

    Raises:
        ConfigError: An option is missing or invalid.
    """
    settings = oidc_settings(config)
    keys = OidcKeys(settings.issuer, config.auth_oidc_ca_file)
    run_in_background(stack, "oidc", keys.run())
    return OidcMethod(settings, keys)


def oidc_settings(config: Config) -> OidcSettings:
    """Returns what tokens of the OIDC provider must be.

    Raises:
        ConfigError: An option is missing or invalid.
    """
    if not is_trustworthy(config.auth_oidc_issuer):
        raise ConfigError(
            "option auth.oidc.issuer: must be the URL of the OIDC provider, with https "
            "(http is possible on this machine)"
        )
    if not config.auth_oidc_audience:
        raise ConfigError(
            "option auth.oidc.audience: must be set, so that tokens for other services are refused"
        )
    if not config.auth_oidc_algorithms or not config.auth_oidc_name_claim or not config.auth_oidc_roles_claim:
        raise ConfigError("options auth.oidc.algorithms, .name_claim and .roles_claim: must not be empty")
    if config.auth_oidc_leeway > _LONGEST_LEEWAY:
        raise ConfigError(f"option auth.oidc.leeway: must be at most {_LONGEST_LEEWAY} seconds")
    try:
        tls_context(config.auth_oidc_ca_file)
    except OSError as error:
        raise ConfigError(
            f"option auth.oidc.ca_file: {config.auth_oidc_ca_file} cannot be used: "
            f"{error.strerror or 'it contains no certificate'}"
        ) from error
    return OidcSettings(
        issuer=config.auth_oidc_issuer,
        audience=config.auth_oidc_audience,
        algorithms=config.auth_oidc_algorithms,
        leeway=round(config.auth_oidc_leeway),
        name_claim=config.auth_oidc_name_claim,
        roles_claim=config.auth_oidc_roles_claim,
    )
