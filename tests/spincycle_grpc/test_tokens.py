"""The tokens of both clients: what is sent, when a function is asked, and what never leaves in plain text."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator

import grpc
import grpc.aio
import grpc.experimental
import pytest
import trustme

from spincycle_grpc import AsyncClient, Client, State, errors, tls_credentials
from tests.fake_manager import REQUEST_ID, FakeManager, serving, stage

TOKEN = "s3cret-token"
SENT = [f"Bearer {TOKEN}"]


@pytest.fixture
def manager() -> FakeManager:
    return FakeManager()


@pytest.fixture
def address(manager: FakeManager) -> Iterator[str]:
    with serving(manager) as served:
        yield served


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def credentials(authority: trustme.CA) -> grpc.ChannelCredentials:
    with authority.cert_pem.tempfile() as file:
        return tls_credentials(ca=file)


@pytest.fixture
def tls_address(manager: FakeManager, authority: trustme.CA) -> Iterator[str]:
    own = authority.issue_cert("127.0.0.1")
    chain = b"".join(pem.bytes() for pem in own.cert_chain_pems)
    with serving(manager, grpc.ssl_server_credentials([(own.private_key_pem.bytes(), chain)])) as served:
        yield served


async def version(client: Client | AsyncClient) -> str:
    """Calls one method of a client of either kind, and closes the client."""
    if isinstance(client, Client):
        with client:
            return await asyncio.to_thread(client.version)
    async with client:
        return await client.version()


Kind = Callable[..., Client | AsyncClient]
both = pytest.mark.parametrize("kind", [Client, AsyncClient])


@both
async def test_the_token_is_sent_to_this_machine(kind: Kind, manager: FakeManager, address: str) -> None:
    await version(kind(address, token=TOKEN))
    await version(kind(address))
    assert manager.authorizations == [SENT, []]


@both
async def test_the_token_is_sent_over_tls(
    kind: Kind,
    manager: FakeManager,
    tls_address: str,
    credentials: grpc.ChannelCredentials,
    authority: trustme.CA,
) -> None:
    await version(kind(tls_address, token=TOKEN, credentials=credentials))
    own = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    await version(kind(tls_address, token=TOKEN, credentials=own))
    assert manager.authorizations == [SENT, SENT]


@both
@pytest.mark.parametrize("token", [TOKEN, lambda: TOKEN])
def test_a_token_is_never_sent_to_another_machine_in_plain_text(kind: Kind, token: object) -> None:
    with pytest.raises(errors.InvalidArgumentError, match=r"10\.0\.0\.1:1 in plain text") as caught:
        kind("10.0.0.1:1", token=token)
    assert caught.value.reason == "TOKEN_IN_PLAIN_TEXT"
    assert "tls_credentials" in caught.value.message
    assert TOKEN not in str(caught.value)


async def test_credentials_beside_a_given_channel_do_not_make_it_safe(
    address: str, credentials: grpc.ChannelCredentials, manager: FakeManager
) -> None:
    with grpc.insecure_channel(address) as channel:
        client = Client(address, channel=channel, credentials=credentials, token=TOKEN)
        with pytest.raises(errors.InvalidArgumentError, match="in plain text"):
            await version(client)
    assert not manager.authorizations


async def test_a_given_channel_sends_the_token_over_tls_only(
    manager: FakeManager, address: str, tls_address: str, credentials: grpc.ChannelCredentials
) -> None:
    with grpc.secure_channel(tls_address, credentials) as channel:
        await version(Client(channel=channel, token=TOKEN))
    async with grpc.aio.secure_channel(tls_address, credentials) as async_channel:
        await version(AsyncClient(channel=async_channel, token=TOKEN))
    assert manager.authorizations == [SENT, SENT]
    with grpc.insecure_channel(address) as channel:
        client = Client(channel=channel, token=TOKEN)
        with pytest.raises(errors.InvalidArgumentError) as caught:
            await version(client)
    assert caught.value.reason == "TOKEN_IN_PLAIN_TEXT"
    async with grpc.aio.insecure_channel(address) as async_channel:
        async_client = AsyncClient(channel=async_channel, token=TOKEN)
        with pytest.raises(errors.InvalidArgumentError) as caught:
            await version(async_client)
    assert caught.value.reason == "TOKEN_IN_PLAIN_TEXT"
    assert len(manager.authorizations) == 2


@both
async def test_credentials_that_do_not_encrypt_do_not_carry_the_token(
    kind: Kind, manager: FakeManager, address: str
) -> None:
    plain = grpc.experimental.insecure_channel_credentials()  # type: ignore[no-untyped-call]
    with pytest.raises(errors.InvalidArgumentError) as caught:
        await version(kind(address, token=TOKEN, credentials=plain))
    assert caught.value.reason == "TOKEN_IN_PLAIN_TEXT"
    assert not manager.authorizations


@both
async def test_a_function_is_asked_once_for_each_call(kind: Kind, manager: FakeManager, address: str) -> None:
    tokens = iter(["first", "second"])
    client = kind(address, token=lambda: next(tokens))
    manager.failures["Version"] = [errors.UnavailableError("shutting down")]
    if isinstance(client, Client):
        await asyncio.to_thread(client.version)
    else:
        await client.version()
    assert await version(client) == "1.0.12"
    assert manager.authorizations == [["Bearer first"], ["Bearer first"], ["Bearer second"]]


async def test_a_wait_asks_for_each_stream_and_poll(manager: FakeManager, address: str) -> None:
    manager.streams = [[errors.UnavailableError("shutting down")], []]
    manager.stages = [stage(State.RUNNING), stage(State.COMPLETE)]
    tokens = iter("abcd")
    with Client(address, token=lambda: next(tokens)) as client:
        await asyncio.to_thread(client.wait, REQUEST_ID)
    assert [asked.method for asked in manager.asked] == ["Watch", "Watch", "Get", "Get"]
    assert manager.authorizations == [["Bearer a"], ["Bearer b"], ["Bearer c"], ["Bearer d"]]


async def test_a_coroutine_function_is_awaited(manager: FakeManager, address: str) -> None:
    async def ask() -> str:
        await asyncio.sleep(0)
        return TOKEN

    await version(AsyncClient(address, token=ask))
    assert manager.authorizations == [SENT]
    with pytest.raises(errors.InvalidArgumentError, match="use AsyncClient"):
        Client(address, token=ask)  # type: ignore[arg-type]


async def test_the_deadline_includes_a_coroutine_function(manager: FakeManager, address: str) -> None:
    async def hang() -> str:
        await asyncio.Event().wait()
        return TOKEN

    async with AsyncClient(address, token=hang) as client:
        with pytest.raises(errors.DeadlineExceededError) as caught:
            await client.version(deadline=0.05)
    assert caught.value.reason == "NO_TOKEN"
    assert not manager.authorizations


@both
async def test_an_error_of_the_function_is_an_error_of_the_call(
    kind: Kind, manager: FakeManager, address: str
) -> None:
    def fail() -> str:
        raise error

    error: Exception = OSError("the vault is sealed")
    with pytest.raises(
        errors.UnauthenticatedError, match="cannot get a token: OSError: the vault is"
    ) as caught:
        await version(kind(address, token=fail))
    assert caught.value.reason == "NO_TOKEN"
    error = TimeoutError("the vault is slow")
    with pytest.raises(errors.UnauthenticatedError, match="TimeoutError: the vault is slow"):
        await version(kind(address, token=fail))
    error = errors.PermissionDeniedError("not you")
    with pytest.raises(errors.PermissionDeniedError, match="not you"):
        await version(kind(address, token=fail))
    assert not manager.authorizations


@both
@pytest.mark.parametrize("token", ["", "s3cret token", "s3cret\n", "s3cret\r\nx: y", "s3crét", b"s3cret"])
async def test_a_malformed_token_is_refused_and_not_shown(
    kind: Kind, token: object, manager: FakeManager, address: str
) -> None:
    for given in (token, lambda: token) if isinstance(token, str) else (lambda: token,):
        with pytest.raises(errors.InvalidArgumentError, match="printable ASCII") as caught:
            await version(kind(address, token=given))
        assert caught.value.reason == "BAD_TOKEN"
        assert "s3cr" not in str(caught.value)
    assert not manager.authorizations


@both
@pytest.mark.parametrize(
    ("token", "fault"),
    [
        ("", "empty"),
        ("s3cret\n", "a token with spaces or line ends around it: use token.strip()"),
        ("Bearer s3cret", "a header: leave out the word Bearer"),
        ("s3cret token", "other text"),
        (b"s3cret", "bytes"),
    ],
)
def test_the_error_says_what_is_wrong_with_a_token(kind: Kind, token: object, fault: str) -> None:
    with pytest.raises(errors.InvalidArgumentError, match=re.escape(f"but this is {fault}")):
        kind("127.0.0.1:1", token=token)


async def test_a_coroutine_that_a_plain_function_returns_is_refused(address: str) -> None:
    class Asker:
        async def __call__(self) -> str:
            return TOKEN

    with pytest.raises(errors.InvalidArgumentError, match="this is coroutine"):
        await version(Client(address, token=Asker()))  # type: ignore[arg-type]


@both
async def test_a_closed_client_does_not_ask_for_a_token(kind: Kind, address: str) -> None:
    asked: list[None] = []
    client = kind(address, token=lambda: asked.append(None) or TOKEN)  # type: ignore[func-returns-value]
    await version(client)
    with pytest.raises(errors.CallCancelledError):
        await version(client)
    assert len(asked) == 1
