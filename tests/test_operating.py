"""docs/operating.md and docs/access.md agree with the code: options, constants, and the plugin example."""

from __future__ import annotations

import contextlib
import re
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from google.protobuf.struct_pb2 import Value

from spincycle_grpc import Caller, PermissionDeniedError, UnauthenticatedError
from spincycle_grpc.v1.request_pb2 import Request, RequestArg
from spincycle_server.config import Config
from spincycle_server.identity import Credentials
from spincycle_server.identity.plugin import PluginMethod, load_authenticator
from tests.limits import STEP

REPOSITORY = Path(__file__).resolve().parents[1]
SERVER = REPOSITORY / "server" / "spincycle_server"
OPTIONS = {field.metadata["key"]: field for field in fields(Config)}
PAGE = "".join(
    (REPOSITORY / "docs" / page).read_text() for page in ("operating.md", "access.md", "tracing.md")
)

SHOWN_OTHERWISE = {
    "auth.admin_roles": "none",
    "auth.methods": "none",
    "auth.metrics_roles": "none",
    "auth.oidc.audience": "none",
    "auth.oidc.ca_file": "none",
    "auth.oidc.issuer": "none",
    "auth.oidc.client_id": "the first of `auth.oidc.audience`",
    "auth.oidc.client_secret_file": "none",
    "auth.plugin": "none",
    "auth.certificates.roles": "none",
    "cluster.certificates": "none",
    "cluster.listen": "none",
    "cluster.key_file": "none",
    "database.schema": "none",
    "database.url": "sqlite:///spincycle.db",
    "database.url_file": "none",
    "job_runner.advertise": "the host it listens on",
    "job_runner.labels": "none",
    "job_runner.grpc": "the HTTP address, with its port plus 10",
    "jobs.factory": "none",
    "jr_client.url": "none",
    "mysql.dsn": "none",
    "mysql.dsn_file": "none",
    "notifications.allowed_hosts": "none",
    "notifications.ca_file": "none",
    "notifications.targets": "none",
    "rm_client.grpc": "derived from `rm_client.url`",
    "telemetry.otlp": "none",
    "telemetry.otlp_ca_file": "none",
    "telemetry.otlp_headers_file": "none",
    "server.addr": "127.0.0.1:32308; Job Runner: 127.0.0.1:32307",
    "server.cors_origins": "none",
    "server.hosts": "none",
    "server.public_url": "none",
    "server.metrics": "none",
    "server.grpc": "the HTTP address, with its port plus 10",
}
"""The page's texts for options whose default is computed or empty."""


def documented_defaults() -> dict[str, str]:
    """Returns the default that the table of options shows, by option."""
    table = PAGE.partition("\n## Options\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([a-z_.]+)`[^|]*\| ([^|]+) \|", table, re.MULTILINE)
    return {key: default.strip() for key, default in rows}


@pytest.mark.parametrize("option", OPTIONS)
def test_the_page_has_the_option_with_its_default(option: str) -> None:
    group = option.rpartition(".")[0]
    if group.endswith(".tls"):
        assert f"`{group}.*`" in PAGE or f"`{group}.cert_file`, `.key_file`, `.ca_file`" in PAGE
        return
    shown = documented_defaults()[option]
    if option in SHOWN_OTHERWISE:
        assert shown == SHOWN_OTHERWISE[option]
    else:
        field = OPTIONS[option]
        assert field.metadata["parse"](shown) == getattr(Config(), field.name)


def test_the_table_of_options_has_no_option_that_does_not_exist() -> None:
    assert {option for option in documented_defaults() if ".tls." not in option} <= set(OPTIONS)


@pytest.mark.parametrize(("name", "module"), re.findall(r"\(`([A-Z_]+)`, ([a-z_/]+\.py)\)", PAGE))
def test_the_page_names_a_constant_that_exists(name: str, module: str) -> None:
    assert re.search(rf"^{name}(: \w+)? = ", (SERVER / module).read_text(), re.MULTILINE)


async def test_the_plugin_of_the_page_authenticates_and_authorizes_callers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    (tmp_path / "my_tokens.py").write_text(example)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    tokens = PluginMethod(load_authenticator("my_tokens:Tokens"), STEP)
    known = await tokens.identify(Credentials({"authorization": "Bearer s3cret"}, "127.0.0.1:1"))
    assert known is not None
    assert known.caller == Caller("storage", frozenset({"dba"}))
    with pytest.raises(UnauthenticatedError):
        await tokens.identify(Credentials({}, "127.0.0.1:1"))
    for host, may in (("db1", True), ("db9", False)):
        request = Request(type="stop-host", args=[RequestArg(name="host", value=Value(string_value=host))])
        with contextlib.nullcontext() if may else pytest.raises(PermissionDeniedError):
            await tokens.authorize(known.caller, "start", request)
