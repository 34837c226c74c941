"""The options of OIDC: which combinations a server refuses to start with."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest

from spincycle_server.app.identity import authentication_of
from spincycle_server.app.oidc import oidc_settings
from spincycle_server.config import Config, ConfigError, load_config
from spincycle_server.identity import Cluster

VALID: dict[str, Any] = {
    "auth_methods": ("oidc",),
    "auth_oidc_issuer": "https://login.example.com/realms/main",
    "auth_oidc_audience": ("spincycle",),
}


def test_the_settings_follow_the_options() -> None:
    settings = oidc_settings(Config(**VALID, auth_oidc_leeway=10.0, auth_oidc_roles_claim="a.b"))
    assert (settings.issuer, settings.audience) == (VALID["auth_oidc_issuer"], ("spincycle",))
    assert (settings.algorithms, settings.leeway) == (("RS256", "ES256"), 10)
    assert (settings.name_claim, settings.roles_claim) == ("sub", "a.b")


@pytest.mark.parametrize("issuer", ["http://localhost:8080", "http://127.0.0.1:1/x", "http://[::1]:1"])
def test_plain_http_is_possible_on_this_machine(issuer: str) -> None:
    assert oidc_settings(Config(**{**VALID, "auth_oidc_issuer": issuer})).issuer == issuer


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"auth_oidc_issuer": ""}, "option auth.oidc.issuer: must be the URL"),
        ({"auth_oidc_issuer": "http://login.example.com"}, "with https"),
        ({"auth_oidc_issuer": "https://user:password@login.example.com"}, "with https"),
        ({"auth_oidc_issuer": "https://login.example.com:port"}, "with https"),
        ({"auth_oidc_issuer": "file:///etc/passwd"}, "with https"),
        ({"auth_oidc_audience": ()}, "option auth.oidc.audience: must be set"),
        ({"auth_oidc_algorithms": ()}, "must not be empty"),
        ({"auth_oidc_name_claim": ""}, "must not be empty"),
        ({"auth_oidc_leeway": 301.0}, "option auth.oidc.leeway: must be at most 300 seconds"),
        ({"auth_oidc_ca_file": "/none.pem"}, "/none.pem cannot be used: No such file"),
    ],
)
def test_an_invalid_option_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        oidc_settings(Config(**{**VALID, **changes}))
    assert "password" not in str(raised.value)


def test_a_ca_file_must_contain_a_certificate(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(ConfigError, match=r"auth\.oidc\.ca_file"):
        oidc_settings(Config(**VALID, auth_oidc_ca_file=str(tmp_path / "ca.pem")))


@pytest.mark.parametrize("algorithm", ["none", "HS256", "HS512", "rs256"])
def test_an_algorithm_without_a_private_key_is_refused(algorithm: str) -> None:
    with pytest.raises(ConfigError, match=f"'{algorithm}' is unknown: must be a list of RS256"):
        load_config(environment={"SPINCYCLE_AUTH_OIDC_ALGORITHMS": f"RS256,{algorithm}"})


async def test_options_of_a_method_that_is_off_are_refused() -> None:
    config = Config(**{**VALID, "auth_methods": ("token",)})
    async with contextlib.AsyncExitStack() as stack:
        with pytest.raises(ConfigError, match=r"has no effect without oidc in auth\.methods"):
            await authentication_of(config, Cluster(), stack)
        roles = Config(auth_methods=("token",), auth_certificates_roles={"ada": frozenset({"admin"})})
        with pytest.raises(ConfigError, match=r"has no effect without certificate in auth\.methods"):
            await authentication_of(roles, Cluster(), stack)
