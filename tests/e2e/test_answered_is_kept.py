"""A create that was answered is completely in the database, even if everything dies right afterwards."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import httpx
import pytest
from sqlalchemy import create_engine, select
from sqlalchemy.pool import NullPool

from spincycle_server.database.engine import parse_url
from spincycle_server.store.schema import request_archives, requests
from tests.databases import DATABASES, database_server, migrate
from tests.e2e.processes import running
from tests.limits import ANSWER, REQUEST_END

CLIENTS = 8
ANSWERED = 200


class Creating:
    """Clients that each create one request after another until a call fails."""

    def __init__(self, address: str) -> None:
        self._address = address
        self.answered: list[str] = []
        self.enough = threading.Event()
        self._threads = [threading.Thread(target=self._create, daemon=True) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _create(self) -> None:
        http = httpx.Client(base_url=f"http://{self._address}", timeout=ANSWER)
        with http, contextlib.suppress(httpx.TransportError):
            while True:
                answer = http.post("/api/v1/requests", json={"type": "nap", "args": {"ms": "1"}})
                if answer.status_code != 201:
                    return
                self.answered.append(answer.json()["id"])
                if len(self.answered) >= ANSWERED:
                    self.enough.set()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(ANSWER)
            assert not thread.is_alive()


@pytest.mark.parametrize("kind", DATABASES)
def test_answered_creates_survive_the_death_of_server_and_database(kind: str, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        database = None if kind == "sqlite" else stack.enter_context(database_server(kind))
        url = f"sqlite:///{tmp_path / 'kept.db'}" if database is None else database.fresh_database()
        migrate(url)
        manager = stack.enter_context(
            running(
                "request-manager",
                "--http=127.0.0.1:0",
                "--grpc=127.0.0.1:0",
                f"--db={url}",
                directory=tmp_path,
            )
        )
        creating = Creating(manager.address("request-manager", "http"))
        assert creating.enough.wait(REQUEST_END), manager.log()
        if database is not None:
            database.kill()
        manager.kill()
        creating.join()
        if database is not None:
            database.start()
        engine = create_engine(parse_url(url), poolclass=NullPool)
        with engine.connect() as connection:
            stored = set(connection.scalars(select(requests.c.request_id)))
            archived = set(connection.scalars(select(request_archives.c.request_id)))
    assert set(creating.answered) <= stored
    assert stored == archived
