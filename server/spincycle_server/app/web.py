"""Assembles the web page of a Request Manager: its files, its sessions, and the names of the server."""

from __future__ import annotations

import socket
from collections.abc import Collection
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from cryptography import x509

from spincycle_server.app.certificates import Certificates
from spincycle_server.config import Config
from spincycle_server.config.secret_files import secret_of
from spincycle_server.gateway import GatewayApp
from spincycle_server.identity import Authentication
from spincycle_server.listening import Address
from spincycle_server.request_manager.audit import AuditLog
from spincycle_server.web import WebApp
from spincycle_server.web.browser_calls import BrowserCalls
from spincycle_server.web.hosts import AllowedHosts
from spincycle_server.web.page_files import PageFiles
from spincycle_server.web.sealing import Sealer
from spincycle_server.web.session_keys import SessionKeys
from spincycle_server.web.sessions import Sessions
from spincycle_server.web.sign_in import SignIn

if TYPE_CHECKING:
    from spincycle_server.store import Store
    from spincycle_server.web.oidc_sign_in import OidcSignIn  # loads libraries that few servers need


class WebRoom(NamedTuple):
    """The web page of a server.

    Attributes:
        page: Its files; None if the server has no page.
        sign_in: Signs browsers in.
        sessions: Opens their sessions; None if no method of authentication has tokens.
        browser_calls: Refuses calls of other pages.
    """

    page: PageFiles | None
    sign_in: SignIn
    sessions: Sessions | None
    browser_calls: BrowserCalls

    @property
    def paths(self) -> Collection[str]:
        """The paths of the page's files."""
        return () if self.page is None else self.page.paths

    def before(self, gateway: GatewayApp) -> WebApp:
        """Returns the app that serves the page, and passes calls on to the gateway."""
        return WebApp(gateway, self.page, self.sign_in, self.sessions, self.browser_calls)


def web_room(
    config: Config,
    address: Address,
    certificates: Certificates,
    *,
    authentication: Authentication,
    store: Store,
    audit: AuditLog,
) -> WebRoom:
    """Returns the web page that the options describe.

    Args:
        config: The options.
        address: The address of HTTP.
        certificates: Has the server's certificate, whose names are those of the server.
        authentication: Identifies callers.
        store: Has the keys of sessions.
        audit: Records who signs in.

    Raises:
        SpinCycleError: An option or the built page cannot be used.
    """
    browser_calls = BrowserCalls(
        AllowedHosts(_names(config, address), lambda: _certificate_names(certificates)),
        config.server_cors_origins,
        config.server_public_url,
    )
    keys = SessionKeys(store.session_keys, store.add_session_key)
    sealer = Sealer(keys.newest, keys.find)
    has_tokens = not {"token", "oidc"}.isdisjoint(config.auth_methods)
    sessions = Sessions(sealer, config.auth_session_lifetime) if has_tokens else None
    sign_in = SignIn(
        authentication,
        config.auth_methods,
        config.auth_admin_roles,
        sessions=sessions,
        oidc=_oidc_sign_in(config, authentication, sealer),
        browser_calls=browser_calls,
        audit=audit,
    )
    return WebRoom(PageFiles() if config.server_web else None, sign_in, sessions, browser_calls)


def _oidc_sign_in(config: Config, authentication: Authentication, sealer: Sealer) -> OidcSignIn | None:
    if "oidc" not in config.auth_methods:
        return None
    from spincycle_server.identity.oidc import OidcMethod
    from spincycle_server.web.oidc_sign_in import OidcClient, OidcSignIn

    def secret() -> str:
        return secret_of("auth.oidc.client_secret", "", config.auth_oidc_client_secret_file)

    secret()  # A file that cannot be read is found at the start.
    client = OidcClient(
        client_id=config.auth_oidc_client_id or config.auth_oidc_audience[0],
        client_secret=secret,
        scopes=config.auth_oidc_scopes,
        ca_file=config.auth_oidc_ca_file,
    )
    method = authentication.method_of(OidcMethod)
    return None if method is None else OidcSignIn(client, method, sealer)


def _names(config: Config, address: Address) -> set[str]:
    public = urlsplit(config.server_public_url).hostname or ""
    own = {socket.gethostname(), config.job_runner_advertise, public, *config.server_hosts}
    return {name for name in own if name} | (set() if address.is_unix else {address.host})


def _certificate_names(certificates: Certificates) -> Collection[str]:
    server = certificates.server
    return () if server is None else _names_in(server.value.pems.cert)


@lru_cache(maxsize=4)
def _names_in(pem: bytes) -> frozenset[str]:
    certificate = x509.load_pem_x509_certificates(pem)[0]
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    return frozenset(names.get_values_for_type(x509.DNSName))
