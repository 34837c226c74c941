"""Sessions in cookies: sealed, bounded, shared by Request Managers, and opened by nobody else."""

from __future__ import annotations

import asyncio
import os
from http.cookies import SimpleCookie
from typing import NamedTuple

import pytest

from spincycle_grpc.errors import InvalidArgumentError
from spincycle_server.gateway.errors import Header
from spincycle_server.web import session_keys
from spincycle_server.web.cookies import MAX_PIECE, MAX_PIECES, Cookie
from spincycle_server.web.sealing import Sealer
from spincycle_server.web.session_keys import SessionKeys
from spincycle_server.web.sessions import MAX_TOKEN, Sessions

TOKEN = "spincycle_" + "t" * 43


class Stored(NamedTuple):
    key_id: bytes
    key: bytes
    age: float


class KeyStore:
    """The stored keys of an installation, with a clock."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        self.rows: list[tuple[bytes, bytes, float]] = []
        self.reads = 0

    async def read(self) -> list[Stored]:
        self.reads += 1
        newest = sorted(self.rows, key=lambda row: -row[2])
        return [Stored(key_id, key, self.now - at) for key_id, key, at in newest]

    async def add(self, key_id: bytes, key: bytes) -> None:
        self.rows.append((key_id, key, self.now))

    def clock(self) -> float:
        return self.now

    def keys(self) -> SessionKeys:
        return SessionKeys(self.read, self.add, self.clock)

    def sealer(self) -> Sealer:
        keys = self.keys()
        return Sealer(keys.newest, keys.find)

    def sessions(self, lifetime: float = 3600) -> Sessions:
        return Sessions(self.sealer(), lifetime, self.clock)


def kept(headers: list[Header], earlier: str = "") -> str:
    """Returns the Cookie header of a browser that got some headers."""
    jar = {name: morsel.value for name, morsel in SimpleCookie(earlier).items()}
    for _, text in headers:
        [(name, morsel)] = SimpleCookie(text.decode()).items()
        if morsel["max-age"] == "0":
            jar.pop(name, None)
        else:
            jar[name] = morsel.value
    return "; ".join(f"{name}={value}" for name, value in jar.items())


async def test_every_request_manager_opens_a_session_also_after_a_restart() -> None:
    store = KeyStore()
    session, headers = await store.sessions().begin(TOKEN, is_secure=False)
    assert session.expires_at == store.now + 3600
    assert await store.sessions().open(kept(headers), is_secure=False) == session
    assert len(store.rows) == 1
    assert TOKEN not in kept(headers)


async def test_a_session_ends_after_its_lifetime_and_with_its_token() -> None:
    store = KeyStore()
    sessions = store.sessions()
    _, long = await sessions.begin(TOKEN, is_secure=False)
    _, short = await sessions.begin(TOKEN, expires_at=store.now + 60, is_secure=False)
    store.now += 61
    assert await sessions.open(kept(short), is_secure=False) is None
    assert await sessions.open(kept(long), is_secure=False) is not None
    store.now += 3600
    assert await sessions.open(kept(long), is_secure=False) is None


async def test_cookies_are_kept_from_scripts_and_other_sites() -> None:
    store = KeyStore()
    for is_secure in (False, True):
        _, headers = await store.sessions().begin(TOKEN, is_secure=is_secure)
        set_now = [text.decode() for _, text in headers if b"Max-Age=0" not in text]
        assert len(set_now) == 1
        for text in (one.decode() for _, one in headers):
            assert "; HttpOnly" in text
            assert "; SameSite=Strict" in text
            assert "; Path=/;" in text
            assert "Domain" not in text
            assert ("; Secure" in text) == text.startswith("__Host-") == is_secure
    assert await store.sessions().open(kept(headers), is_secure=False) is None


async def test_a_changed_cookie_and_one_of_another_installation_open_nothing() -> None:
    store, other = KeyStore(), KeyStore()
    _, headers = await store.sessions().begin(TOKEN, is_secure=False)
    cookie = kept(headers)
    name, _, value = cookie.partition("=")
    assert await other.sessions().open(cookie, is_secure=False) is None
    changed = [
        value[:place] + ("A" if value[place] != "A" else "B") + value[place + 1 :] for place in (0, 9, 30, -9)
    ]
    for wrong in (*changed, value[:-4], value[4:], "", "%%%", "a", value + "AAAA"):
        assert await store.sessions().open(f"{name}={wrong}", is_secure=False) is None
    assert await store.sessions().open(cookie, is_secure=False) is not None


async def test_a_text_is_opened_for_its_purpose_alone() -> None:
    store = KeyStore()
    sealed = await store.sealer().seal("sign-in", b"data")
    assert await store.sealer().unseal("sign-in", sealed) == b"data"
    assert await store.sealer().unseal("session", sealed) is None
    assert await store.sealer().seal("sign-in", b"data") != sealed


async def test_a_long_token_is_split_and_a_longer_one_refused() -> None:
    store = KeyStore()
    sessions = store.sessions()
    long = os.urandom(MAX_TOKEN // 2).hex()
    session, headers = await sessions.begin(long, is_secure=True)
    assert session.token == long
    assert all(len(text) < 4096 for _, text in headers)
    cookie = kept(headers)
    assert await sessions.open(cookie, is_secure=True) == session
    _, short = await sessions.begin(TOKEN, is_secure=True)  # It replaces all cookies of the long one.
    reopened = await sessions.open(kept(short, earlier=cookie), is_secure=True)
    assert reopened is not None
    assert reopened.token == TOKEN
    with pytest.raises(InvalidArgumentError) as caught:
        await sessions.begin(long + "x", is_secure=True)
    assert caught.value.reason == "SESSION_TOO_LARGE"


def test_a_cookie_has_a_limit() -> None:
    cookie = Cookie("c", "Lax")
    whole = "v" * MAX_PIECE * MAX_PIECES
    assert cookie.read(kept(cookie.write(whole, 60, is_secure=False)), is_secure=False) == whole
    with pytest.raises(ValueError, match="too long"):
        cookie.write(whole + "v", 60, is_secure=False)


async def test_a_new_key_seals_after_a_month_and_the_old_one_still_opens() -> None:
    store = KeyStore()
    sessions = store.sessions(lifetime=30 * 86_400)
    _, before = await sessions.begin(TOKEN, is_secure=False)
    store.now += session_keys.ROTATION - 10
    _, again = await sessions.begin(TOKEN, is_secure=False)
    assert len(store.rows) == 1
    store.now += 20
    await sessions.begin(TOKEN, is_secure=False)
    assert len(store.rows) == 2
    assert await sessions.open(kept(again), is_secure=False) is not None
    assert await sessions.open(kept(before), is_secure=False) is None  # It has ended.


async def test_calls_with_unknown_keys_share_a_read_and_find_keys_of_others() -> None:
    store = KeyStore()
    keys = store.keys()
    await keys.newest()
    other = KeyStore()
    theirs = await other.keys().newest()
    store.rows += other.rows  # Another Request Manager has stored a key since the last read.
    store.now += 0.4
    reads = store.reads
    unknown = [os.urandom(8) for _ in range(20)]
    found = await asyncio.gather(*(keys.find(key_id) for key_id in (*unknown, theirs.key_id)))
    assert found == [None] * 20 + [theirs]
    assert store.reads == reads + 1
    assert await keys.find(theirs.key_id) == theirs
    assert store.reads == reads + 1
