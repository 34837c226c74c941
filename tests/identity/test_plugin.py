"""The authentication plugin: its forms, what it may return, and its second step."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from spincycle_grpc.auth import Caller, PeerCertificate
from spincycle_grpc.errors import (
    InternalError,
    InvalidArgumentError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from spincycle_grpc.v1.request_pb2 import Request
from spincycle_server.identity import Credentials
from spincycle_server.identity.plugin import PluginMethod, load_authenticator
from tests.limits import STEP

CERTIFICATE = PeerCertificate("finch", frozenset({"finch"}))
CREDENTIALS = Credentials({"authorization": "Bearer s3cret"}, "192.0.2.1:5", CERTIFICATE)
FINCH = Caller("finch", frozenset({"dba"}))


class TwoArguments:
    async def authenticate(self, metadata: Mapping[str, str], peer: str) -> Caller:
        return Caller(f"{metadata['authorization']} {peer}")


class ThreeArguments:
    async def authenticate(
        self, metadata: Mapping[str, str], peer: str, certificate: PeerCertificate | None
    ) -> Caller:
        assert (metadata, peer) == (CREDENTIALS.metadata, CREDENTIALS.peer)
        return Caller(certificate.common_name if certificate else "nobody")


class OtherNames:
    async def authenticate(self, headers: object, address: object, presented: object, /) -> Caller:
        return Caller("positional" if presented is CERTIFICATE else "nobody")


class OptionalCertificate:
    async def authenticate(
        self, metadata: object, peer: object, retries: int = 1, *, certificate: object = None
    ) -> Caller:
        return Caller("optional" if certificate is CERTIFICATE and retries == 1 else "nobody")


class OptionalThird:
    async def authenticate(self, metadata: object, peer: object, realm: str = "ours") -> Caller:
        return Caller(realm)


class PlainFunction:
    def authenticate(self, metadata: object, peer: object, certificate: object) -> Caller:
        return Caller("plain" if certificate is CERTIFICATE else "nobody")


def unnamed(function: Any) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return call


class Decorated:
    @unnamed
    async def authenticate(self, metadata: object, peer: object) -> Caller:
        return Caller("decorated")


class Wrapped:
    async def authenticate(self, metadata: object, peer: object, certificate: object) -> Caller:
        return Caller("wrapped" if certificate is CERTIFICATE else "nobody")

    authenticate = functools.wraps(authenticate)(unnamed(authenticate))


@pytest.mark.parametrize(
    ("plugin", "name"),
    [
        (TwoArguments(), "Bearer s3cret 192.0.2.1:5"),
        (ThreeArguments(), "finch"),
        (OtherNames(), "positional"),
        (OptionalCertificate(), "optional"),
        (OptionalThird(), "ours"),
        (PlainFunction(), "plain"),
        (Decorated(), "decorated"),
        (Wrapped(), "wrapped"),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_a_plugin_gets_the_arguments_that_it_takes(plugin: object, name: str) -> None:
    identity = await PluginMethod(plugin, STEP).identify(CREDENTIALS)
    assert identity is not None
    assert (identity.caller.name, identity.method) == (name, "plugin")


async def test_a_caller_without_a_certificate_has_none() -> None:
    identity = await PluginMethod(ThreeArguments(), STEP).identify(
        Credentials(CREDENTIALS.metadata, CREDENTIALS.peer)
    )
    assert identity is not None
    assert identity.caller.name == "nobody"


class Nothing:
    pass


class NotCallable:
    authenticate = "yes"


class OneArgument:
    async def authenticate(self, metadata: object) -> None: ...


class FourArguments:
    async def authenticate(
        self, metadata: object, peer: object, certificate: object, realm: object
    ) -> None: ...


class BadAuthorize(TwoArguments):
    async def authorize(self, caller: object) -> None: ...


class AuthorizeNotCallable(TwoArguments):
    authorize = "yes"


@pytest.mark.parametrize(
    "plugin",
    [Nothing(), NotCallable(), OneArgument(), FourArguments(), BadAuthorize(), AuthorizeNotCallable()],
    ids=lambda value: type(value).__name__,
)
def test_a_plugin_that_cannot_be_called_is_refused_at_the_start(plugin: object) -> None:
    with pytest.raises(InvalidArgumentError, match=r"option auth\.plugin") as caught:
        PluginMethod(plugin, STEP)
    assert caught.value.reason == "BAD_CONFIG"


class Returns:
    def __init__(self, value: object) -> None:
        self._value = value

    async def authenticate(self, metadata: object, peer: object) -> Any:
        return self._value

    async def authorize(self, caller: object, op: str, request: Request) -> Any:
        return self._value


UNTYPED: Any = Caller


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (None, "must be a Caller, not NoneType"),
        ("Bearer s3cret", "must be a Caller, not str"),
        (True, "must be a Caller, not bool"),
        (Caller, "must be a Caller, not type"),
        (("finch", frozenset()), "must be a Caller, not tuple"),
        (UNTYPED("finch", "dba s3cret"), "roles must be a set of strings, not str"),
        (UNTYPED("finch", ["dba"]), "roles must be a set of strings, not list"),
        (UNTYPED("finch", None), "roles must be a set of strings, not NoneType"),
        (UNTYPED("finch", {"dba": True}), "roles must be a set of strings, not dict"),
        (UNTYPED("finch", frozenset({"dba", 7})), "each role must be a string"),
        (UNTYPED(None, frozenset()), "name must be a string"),
        (UNTYPED(b"finch", frozenset()), "name must be a string"),
        (Caller("fin\0ch"), "name must be a string of printable characters"),
        (Caller("fin\nch"), "name must be a string of printable characters"),
        (Caller("fin\ud800ch"), "name must be a string of printable characters"),
    ],
)
async def test_a_plugin_that_returns_no_valid_caller_refuses_the_call(value: object, fault: str) -> None:
    with capture_logs() as logs, pytest.raises(UnauthenticatedError) as caught:
        await PluginMethod(Returns(value), STEP).identify(CREDENTIALS)
    assert caught.value.reason == "NO_CALLER"
    (log,) = logs
    assert fault in log["fault"]
    assert "s3cret" not in f"{logs} {caught.value.message}"


@pytest.mark.parametrize(
    "roles", [frozenset({"dba"}), {"dba"}, {"dba": 1}.keys()], ids=lambda it: type(it).__name__
)
async def test_the_roles_can_be_any_set(roles: Any) -> None:
    identity = await PluginMethod(Returns(Caller("finch", roles)), STEP).identify(CREDENTIALS)
    assert identity is not None
    assert set(identity.caller.roles) == {"dba"}


@pytest.mark.parametrize("name", ["", "J\u00fcrgen \u00d6", "CN=finch, O=Birds", "\u5c71"])
async def test_the_name_can_be_any_printable_text(name: str) -> None:
    identity = await PluginMethod(Returns(Caller(name)), STEP).identify(CREDENTIALS)
    assert identity is not None
    assert identity.caller.name == name


async def test_a_repeated_authorization_header_is_refused_before_the_plugin_is_asked() -> None:
    repeated = Credentials({"authorization": "Bearer a, Bearer b"}, repeated=frozenset({"authorization"}))
    with pytest.raises(UnauthenticatedError) as caught:
        await PluginMethod(Returns(FINCH), STEP).identify(repeated)
    assert caught.value.reason == "REPEATED_CREDENTIALS"


class Refuses(TwoArguments):
    async def authenticate(self, metadata: Mapping[str, str], peer: str) -> Caller:
        raise PermissionDeniedError("locked out", reason="LOCKED_OUT")

    def authorize(self, caller: Caller, op: str, request: Request) -> None:
        raise PermissionDeniedError(f"{caller.name} owns no {request.type}", reason="NOT_OWNER")


async def test_the_errors_of_a_plugin_go_to_the_caller() -> None:
    plugin = PluginMethod(Refuses(), STEP)
    with pytest.raises(PermissionDeniedError, match="locked out"):
        await plugin.identify(CREDENTIALS)
    with pytest.raises(PermissionDeniedError, match="finch owns no nap") as caught:
        await plugin.authorize(FINCH, "start", Request(type="nap"))
    assert caught.value.reason == "NOT_OWNER"


@pytest.mark.parametrize("value", [None, True])
async def test_none_and_true_allow_an_operation(value: object) -> None:
    plugin = PluginMethod(Returns(value), STEP)
    assert plugin.authorizes
    await plugin.authorize(FINCH, "start", Request(type="nap"))


@pytest.mark.parametrize("value", [False, 0, 1, "", "yes", FINCH, PermissionDeniedError("returned")])
async def test_every_other_answer_refuses_an_operation(value: object) -> None:
    with capture_logs() as logs, pytest.raises(PermissionDeniedError) as caught:
        await PluginMethod(Returns(value), STEP).authorize(FINCH, "stop", Request(id="id-1", type="nap"))
    assert (caught.value.reason, caught.value.request_id) == ("ACCESS_DENIED", "id-1")
    assert "caller finch may not stop" in caught.value.message
    assert len(logs) == (0 if value is False else 1)


async def test_a_plugin_without_authorize_allows_what_the_lists_allow() -> None:
    plugin = PluginMethod(TwoArguments(), STEP)
    assert not plugin.authorizes
    await plugin.authorize(FINCH, "start", Request())


class Breaks(TwoArguments):
    async def authorize(self, caller: Caller, op: str, request: Request) -> None:
        raise PermissionError("not an error of Spin Cycle")


async def test_an_unexpected_exception_of_authorize_refuses_the_operation() -> None:
    with capture_logs(), pytest.raises(InternalError) as caught:
        await PluginMethod(Breaks(), STEP).authorize(FINCH, "start", Request())
    assert caught.value.reason == "AUTH_PLUGIN_FAILED"


@pytest.mark.parametrize("name", ["json", "json:", ":Tokens"])
def test_a_plugin_needs_a_module_and_an_attribute(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="must be module:attribute, such as") as caught:
        load_authenticator(name)
    assert caught.value.reason == "BAD_CONFIG"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("", "sample_plugin:Missing"),
        ("raise SystemExit(3)", "sample_plugin:Plugin"),
        ("def Plugin(): raise ValueError", "no_such_module:Plugin"),
        ("class Plugin:\n    def __init__(self): raise SystemExit(3)", "sample_plugin:Plugin"),
    ],
)
def test_a_plugin_that_cannot_be_loaded_is_a_problem_of_the_option(
    source: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sample_plugin.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "sample_plugin", raising=False)
    with pytest.raises(InvalidArgumentError, match=r"option auth\.plugin: cannot load") as caught:
        load_authenticator(name)
    assert caught.value.reason == "BAD_CONFIG"
