"""Who may call which method, by the credentials of the call."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from spincycle_grpc.auth import Caller, PeerCertificate
from spincycle_grpc.errors import (
    PermissionDeniedError,
    SpinCycleError,
    UnauthenticatedError,
    UnavailableError,
)
from spincycle_grpc.v1.request_pb2 import Request
from spincycle_server.identity import (
    ANONYMOUS,
    Authentication,
    AuthenticationMethod,
    Cluster,
    Credentials,
    Identity,
    MethodAccess,
)
from spincycle_server.identity.certificates import CertificateMethod
from spincycle_server.identity.cluster import KEY_HEADER
from spincycle_server.identity.plugin import PluginMethod
from tests.limits import STEP

KEY = "k" * 32
CLOSED = Cluster(keys=lambda: (KEY,), certificates=["runner.example.com"])
SERVER = Credentials({KEY_HEADER: KEY})
SERVER_CERTIFICATE = Credentials(certificate=PeerCertificate("runner", frozenset({"runner.example.com"})))
FINCH = Credentials({"authorization": "Bearer finch"})
ROOT = Credentials({"authorization": "Bearer root"})
UNKNOWN = Credentials({"authorization": "Bearer unknown"})
NOBODY = Credentials()


class Tokens:
    """Identifies users by tokens that are their names."""

    hint = "a token"

    async def identify(self, credentials: Credentials) -> Identity | None:
        token = credentials.bearer_token
        if not token:
            return None
        if token == "away":
            raise UnavailableError("the list of tokens is unreachable")
        if token not in ("finch", "root"):
            raise UnauthenticatedError("unknown token", reason="UNKNOWN_TOKEN")
        return Identity(Caller(token, frozenset({token})), "token")


class RememberingTokens(Tokens):
    """Remembers all users."""

    def recall(self, credentials: Credentials) -> Identity | None:
        name = credentials.metadata.get("authorization", "").removeprefix("Bearer ")
        return Identity(Caller(name, frozenset({name})), "token") if name in ("finch", "root") else None


class Plugin:
    """Knows users by another header, and refuses everybody else."""

    async def authenticate(self, metadata: dict[str, str], peer: str) -> Caller:
        if "x-user" not in metadata:
            raise UnauthenticatedError("send x-user", reason="NO_USER")
        return Caller(metadata["x-user"])


class AuthorizingPlugin(Plugin):
    async def authorize(self, caller: Caller, op: str, request: Request) -> bool:
        return True


def authentication(
    *methods: AuthenticationMethod, cluster: Cluster = CLOSED, admin_roles: tuple[str, ...] = ("root",)
) -> Authentication:
    return Authentication(methods, cluster, admin_roles=admin_roles)


WITH_TOKENS = authentication(RememberingTokens())
WITHOUT_METHODS = authentication()
WITH_PLUGIN = authentication(PluginMethod(Plugin(), STEP))


async def outcome(tested: Authentication, access: MethodAccess, credentials: Credentials) -> str:
    """Returns the caller and the method of authentication, or the status and the reason of the refusal."""
    recall = tested.recall_for(access)
    recalled = None if recall is None else recall(credentials)
    try:
        identity = await tested.identify(access, credentials)
    except SpinCycleError as error:
        assert recalled is None
        return f"{error.status.name} {error.reason}"
    assert recalled is None or (recalled.caller, recalled.method) == (identity.caller, identity.method)
    if identity is ANONYMOUS:
        return "anonymous"
    return f"{identity.caller.name} by {identity.method}".strip()


NO_CREDENTIALS = "UNAUTHENTICATED NO_CREDENTIALS"
UNKNOWN_TOKEN = "UNAUTHENTICATED UNKNOWN_TOKEN"
DENIED = "PERMISSION_DENIED ACCESS_DENIED"
NOT_A_SERVER = "UNAUTHENTICATED SERVERS_ONLY"
USER_NOT_A_SERVER = "PERMISSION_DENIED SERVERS_ONLY"

TABLE = {
    # access:   nobody, an unknown token, a user, an admin, another server, a server's certificate
    "public": ("anonymous", "anonymous", "anonymous", "anonymous", "anonymous", "anonymous"),
    "read": (NO_CREDENTIALS, UNKNOWN_TOKEN, "finch by token", "root by token", "by cluster", "by cluster"),
    "request": (
        NO_CREDENTIALS, UNKNOWN_TOKEN, "finch by token", "root by token", NO_CREDENTIALS, NO_CREDENTIALS,
    ),
    "metrics": (NO_CREDENTIALS, UNKNOWN_TOKEN, DENIED, "root by token", NO_CREDENTIALS, NO_CREDENTIALS),
    "admin": (NO_CREDENTIALS, UNKNOWN_TOKEN, DENIED, "root by token", NO_CREDENTIALS, NO_CREDENTIALS),
    "server": (
        NOT_A_SERVER, NOT_A_SERVER, USER_NOT_A_SERVER, USER_NOT_A_SERVER, "by cluster", "by cluster",
    ),
}  # fmt: skip


@pytest.mark.parametrize("access", MethodAccess)
async def test_who_may_call_which_methods(access: MethodAccess) -> None:
    callers = (NOBODY, UNKNOWN, FINCH, ROOT, SERVER, SERVER_CERTIFICATE)
    assert tuple([await outcome(WITH_TOKENS, access, caller) for caller in callers]) == TABLE[access.value]


@pytest.mark.parametrize("access", MethodAccess)
async def test_without_a_method_of_authentication_users_may_call_all_but_servers_methods(
    access: MethodAccess,
) -> None:
    for caller in (NOBODY, UNKNOWN):
        expected = NOT_A_SERVER if access is MethodAccess.SERVER else "anonymous"
        assert await outcome(WITHOUT_METHODS, access, caller) == expected
    assert not WITHOUT_METHODS.is_on
    assert WITH_TOKENS.is_on


async def test_a_role_for_the_metrics_allows_nothing_else() -> None:
    tested = Authentication([RememberingTokens()], CLOSED, admin_roles=["root"], metrics_roles=["finch"])
    assert await outcome(tested, MethodAccess.METRICS, FINCH) == "finch by token"
    assert await outcome(tested, MethodAccess.METRICS, ROOT) == "root by token"
    assert await outcome(tested, MethodAccess.ADMIN, FINCH) == DENIED


async def test_everybody_is_a_server_if_the_cluster_is_open() -> None:
    is_open = authentication(Tokens(), cluster=Cluster(is_open=True))
    assert await outcome(is_open, MethodAccess.SERVER, NOBODY) == "by cluster"
    assert await outcome(is_open, MethodAccess.READ, NOBODY) == NO_CREDENTIALS
    assert await outcome(is_open, MethodAccess.READ, FINCH) == "finch by token"


async def test_a_server_may_read_although_the_plugin_does_not_know_it() -> None:
    assert await outcome(WITH_PLUGIN, MethodAccess.READ, SERVER) == "by cluster"
    assert await outcome(WITH_PLUGIN, MethodAccess.READ, NOBODY) == "UNAUTHENTICATED NO_USER"
    assert await outcome(WITH_PLUGIN, MethodAccess.SERVER, NOBODY) == NOT_A_SERVER


async def test_the_first_method_with_a_credential_of_its_kind_decides() -> None:
    both = authentication(Tokens(), PluginMethod(Plugin(), STEP))
    for metadata, expected in (
        ({"authorization": "Bearer finch", "x-user": "wren"}, "finch by token"),
        ({"x-user": "wren"}, "wren by plugin"),
        ({"authorization": "Bearer unknown", "x-user": "wren"}, UNKNOWN_TOKEN),
    ):
        assert await outcome(both, MethodAccess.READ, Credentials(metadata)) == expected


def test_remembered_users_are_identified_without_waiting() -> None:
    certificates = CertificateMethod()
    for methods in (
        (RememberingTokens(),),
        (certificates, RememberingTokens(), PluginMethod(Plugin(), STEP)),
    ):
        for access in (MethodAccess.READ, MethodAccess.REQUEST):
            recall = authentication(*methods).recall_for(access)
            assert recall is not None
            assert recall(FINCH) is not None
            assert recall(UNKNOWN) is None
            for extra in (
                Credentials({**FINCH.metadata, KEY_HEADER: KEY}),
                FINCH._replace(certificate=PeerCertificate("wren", frozenset())),
                FINCH._replace(repeated=frozenset({"authorization"})),
            ):
                assert recall(extra) is None


def test_no_user_is_recalled_for_methods_that_need_more_than_a_known_user() -> None:
    tokens = RememberingTokens()
    for access in (MethodAccess.PUBLIC, MethodAccess.ADMIN):
        assert authentication(tokens).recall_for(access) is None
    for_servers = authentication(tokens).recall_for(MethodAccess.SERVER)
    assert for_servers is not None
    assert for_servers(FINCH) is None
    assert authentication(tokens).of_runner(admins_read=True).recall_for(MethodAccess.READ) is None


def test_a_method_that_is_asked_first_is_never_skipped() -> None:
    for first in (PluginMethod(Plugin(), STEP), Tokens()):
        assert authentication(first, RememberingTokens()).recall_for(MethodAccess.READ) is None


def test_servers_are_recalled_unless_they_have_a_certificate_or_repeat_a_header() -> None:
    recall = WITH_TOKENS.recall_for(MethodAccess.SERVER)
    assert recall is not None
    identity = recall(SERVER)
    assert identity is not None
    assert identity.method == "cluster"
    for other in (
        NOBODY,
        UNKNOWN,
        SERVER._replace(certificate=PeerCertificate("wren", frozenset())),
        SERVER._replace(repeated=frozenset({KEY_HEADER})),
    ):
        assert recall(other) is None


async def test_a_refusal_names_what_to_send() -> None:
    both = authentication(CertificateMethod(), Tokens())
    with pytest.raises(UnauthenticatedError, match="send a client certificate or a token"):
        await both.identify(MethodAccess.READ, NOBODY)


async def test_credentials_that_cannot_be_checked_are_not_refused_as_wrong() -> None:
    away = Credentials({"authorization": "Bearer away"})
    for access in (MethodAccess.READ, MethodAccess.SERVER):
        assert await outcome(WITH_TOKENS, access, away) == "UNAVAILABLE UNAVAILABLE"


@pytest.mark.parametrize(
    ("roles", "named"), [(("root", "sre"), "root, sre"), ((), r"\(none: set auth.admin_roles\)")]
)
async def test_a_denial_names_the_admin_roles(roles: tuple[str, ...], named: str) -> None:
    tested = authentication(Tokens(), admin_roles=roles)
    with pytest.raises(PermissionDeniedError, match=f"caller finch may not .* one of the roles: {named}$"):
        await tested.identify(MethodAccess.ADMIN, FINCH)


async def test_the_identity_of_a_server_ends_with_its_key() -> None:
    keys = [KEY]
    tested = authentication(cluster=Cluster(keys=lambda: tuple(keys)))
    identity = await tested.identify(MethodAccess.SERVER, SERVER)
    assert identity.is_current()
    keys[:] = ["n" * 32]
    assert not identity.is_current()


METHODS: dict[str, Callable[[], list[AuthenticationMethod]]] = {
    "none": list,
    "token": lambda: [Tokens()],
    "certificate": lambda: [CertificateMethod()],
    "plugin": lambda: [PluginMethod(Plugin(), STEP)],
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("cluster", [CLOSED, Cluster(is_open=True)], ids=["closed", "open"])
@pytest.mark.parametrize("header", ["authorization", KEY_HEADER])
async def test_a_repeated_credential_is_refused_whatever_identifies_the_caller(
    method: str, cluster: Cluster, header: str
) -> None:
    tested = authentication(*METHODS[method](), cluster=cluster)
    repeated = Credentials(
        {"authorization": "Bearer finch", "x-user": "finch", KEY_HEADER: KEY},
        certificate=SERVER_CERTIFICATE.certificate,
        repeated=frozenset({header, "accept"}),
    )
    for access in set(MethodAccess) - {MethodAccess.PUBLIC}:
        assert await outcome(tested, access, repeated) == "UNAUTHENTICATED REPEATED_CREDENTIALS"
    assert await outcome(tested, MethodAccess.PUBLIC, repeated) == "anonymous"


async def test_another_repeated_header_is_no_reason_to_refuse() -> None:
    repeated = Credentials(FINCH.metadata, repeated=frozenset({"accept"}))
    assert await outcome(WITH_TOKENS, MethodAccess.READ, repeated) == "finch by token"


def test_only_a_plugin_with_authorize_is_asked_again() -> None:
    plugin = PluginMethod(AuthorizingPlugin(), STEP)
    assert authentication(Tokens(), plugin).second_check is plugin
    assert WITH_PLUGIN.second_check is None
    assert WITH_TOKENS.second_check is None


RUNNER = WITH_TOKENS.of_runner(admins_read=True)


async def test_a_runner_lets_admins_and_servers_read_if_reading_follows_the_lists() -> None:
    for caller, expected in (
        (NOBODY, NO_CREDENTIALS), (FINCH, DENIED), (ROOT, "root by token"), (SERVER, "by cluster"),
    ):  # fmt: skip
        assert await outcome(RUNNER, MethodAccess.READ, caller) == expected


async def test_a_runner_lets_every_known_user_read_by_default() -> None:
    runner = WITH_TOKENS.of_runner(admins_read=False)
    assert await outcome(runner, MethodAccess.READ, FINCH) == "finch by token"
    assert await outcome(runner, MethodAccess.READ, NOBODY) == NO_CREDENTIALS
    assert await outcome(WITH_TOKENS, MethodAccess.READ, FINCH) == "finch by token"


async def test_a_request_manager_may_read_from_a_runner_of_an_open_cluster() -> None:
    runner = authentication(Tokens(), cluster=Cluster(is_open=True)).of_runner(admins_read=True)
    assert await outcome(runner, MethodAccess.READ, NOBODY) == "by cluster"
