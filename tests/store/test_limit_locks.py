"""Transactions lock the keys of limits without deadlocks, on each database."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, text
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import OperationalError

from spincycle_server.database.transaction import Transaction
from spincycle_server.database.troubles import Trouble, trouble_of
from spincycle_server.store.limit_ledger import Claim, LimitLedger, Wanted, ledger_of
from spincycle_server.store.limit_rows import Owner
from spincycle_server.store.schema import limits
from tests.databases import SharedServers, engine_of

A, B, C = ("a" * 32, "b" * 32, "c" * 32)


@contextlib.contextmanager
def with_keys(url: str) -> Iterator[Engine]:
    """Yields an engine with two connections for transactions, of a database with three keys."""
    engine = engine_of(url)
    row = {"max": 1, "last_ticket": 0, "claims": 0}
    with engine.begin() as connection:
        connection.execute(insert(limits), [row | {"limit_id": one, "key": one} for one in (A, B, C)])
    yield engine
    engine.dispose()


def begin(connection: Connection, kept: dict[type[Any], Any] | None) -> tuple[Transaction, LimitLedger]:
    connection.begin()
    transaction = Transaction(connection, kept=kept)
    return transaction, ledger_of(transaction)


def test_a_repeated_transaction_locks_all_keys_first_that_it_has_needed(migrated_url: str) -> None:
    kept: dict[type[Any], Any] = {}
    with with_keys(migrated_url) as engine, engine.connect() as connection:
        _, ledger = begin(connection, kept)
        ledger._lock({B})
        ledger._lock({A, B})
        assert ledger._rows.keys() == {A, B}
        connection.rollback()
        _, ledger = begin(connection, kept)
        ledger._lock({C})
        assert ledger._rows.keys() == {A, B, C}
        connection.rollback()
        _, ledger = begin(connection, {})
        ledger._lock({C})
        assert ledger._rows.keys() == {C}, "another batch has needed nothing yet"
        connection.rollback()


@pytest.mark.parametrize("kept", [{}, None])
def test_a_transaction_that_is_repeated_does_not_wait_for_further_keys_on_postgresql(
    database_servers: SharedServers, tmp_path: Path, kept: dict[type[Any], Any] | None
) -> None:
    """The others find deadlocks as soon as a transaction waits."""
    with (
        database_servers.migrated("postgresql", tmp_path) as url,
        with_keys(url) as engine,
        engine.connect() as one,
        engine.connect() as other,
    ):
        one_transaction, ledger = begin(one, kept)
        _, others = begin(other, {})
        others._lock({B})
        one_transaction.execute(text("SET LOCAL lock_timeout = '1ms'"))
        ledger._lock({A})
        error = "lock timeout" if kept is None else "could not obtain lock"
        with pytest.raises(OperationalError, match=error) as caught:
            ledger._lock({B})
        assert trouble_of(caught.value) is Trouble.CONFLICT
        one.rollback()
        other.rollback()


def claim(key: str) -> Claim:
    return Claim(Owner("r" * 20), [Wanted(key, 1)], "", 1)


def test_keys_that_are_asked_for_after_others_were_locked_are_not_waited_for_on_postgresql(
    database_servers: SharedServers, tmp_path: Path
) -> None:
    """A transaction that stores reports releases keys first, and then locks those for which others ask."""
    asked = claim("asked")
    (limit,) = asked.limits
    with (
        database_servers.migrated("postgresql", tmp_path) as url,
        with_keys(url) as engine,
        engine.connect() as one,
        engine.connect() as other,
    ):
        _, others = begin(other, {})
        others.lock([asked])
        others.write(1)
        other.commit()
        kept: dict[type[Any], Any] = {}
        _, others = begin(other, {})
        others._lock({limit.limit_id})
        one_transaction, ledger = begin(one, kept)
        one_transaction.execute(text("SET LOCAL lock_timeout = '1ms'"))
        ledger._lock({A})
        with pytest.raises(OperationalError, match="could not obtain lock"):
            ledger.lock([asked])
        one.rollback()
        other.rollback()
        _, ledger = begin(one, kept)
        ledger._lock({A})
        assert ledger._rows.keys() == {A, limit.limit_id}
        one.rollback()
