"""Calibration: how many one-row autocommit inserts a second the database does on this machine.

The load comes from the databases' own tools, which use little CPU, so the figure describes the database.
SQLite has no such tool, so threads of this process insert.
"""

from __future__ import annotations

import re
import sqlite3
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.engine import make_url

from tests.databases import find_binary

if TYPE_CHECKING:
    from bench.cluster import Cluster
    from tests.databases import DatabaseServer

CONNECTIONS = 16
INSERTS = 40_000
LIMIT = 120.0
_TABLE = "CREATE TABLE calibration (id {serial} PRIMARY KEY, number BIGINT NOT NULL)"
_INSERT = "INSERT INTO calibration (number) VALUES (7)"


def inserts_per_second(cluster: Cluster, inserts: int = INSERTS) -> float:
    """Returns the rate of one-row autocommit inserts over 16 connections into the cluster's database."""
    return {"sqlite": _sqlite, "mariadb": _mariadb, "postgresql": _postgresql}[cluster.kind](cluster, inserts)


def _mariadb(cluster: Cluster, inserts: int) -> float:
    url = make_url(cluster.url)
    output = _run(
        find_binary("mariadb-slap", "mysqlslap"), "--no-defaults", "--host=127.0.0.1", f"--port={url.port}",
        f"--user={url.username}", "--create-schema=calibration", "--engine=innodb",
        f"--create={_TABLE.format(serial='BIGINT AUTO_INCREMENT')}", f"--query={_INSERT}",
        f"--concurrency={CONNECTIONS}", f"--number-of-queries={inserts}",
    )  # fmt: skip
    found = re.search(r"Average number of seconds[^:]*: ([\d.]+)", output)
    assert found is not None, output
    return inserts / float(found[1])


def _postgresql(cluster: Cluster, inserts: int) -> float:
    assert cluster.database is not None
    return postgresql_inserts(cluster.database, inserts)


def postgresql_inserts(server: DatabaseServer, inserts: int = INSERTS) -> float:
    """Returns the rate of one-row autocommit inserts over 16 connections into a PostgreSQL server."""
    server.execute(_TABLE.format(serial="BIGSERIAL"))
    url = make_url(server.admin_url())
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(_INSERT + ";\n")
        script.flush()
        output = _run(
            find_binary("pgbench"), "-h", "127.0.0.1", "-p", str(url.port), "-U", str(url.username), "-n",
            "-M", "prepared", "-c", str(CONNECTIONS), "-t", str(inserts // CONNECTIONS), "-f", script.name,
            str(url.database),
        )  # fmt: skip
    server.execute("DROP TABLE calibration")
    found = re.search(r"tps = ([\d.]+)", output)
    assert found is not None, output
    return float(found[1])


def _sqlite(cluster: Cluster, inserts: int) -> float:
    """Inserts into a separate file next to the database, with the same settings."""
    path = Path(str(make_url(cluster.url).database)).with_name(f"calibration-{time.time_ns()}.db")
    inserts //= 10  # Fewer inserts, because each waits for the disk separately.
    first = _sqlite_connection(path)
    first.execute(_TABLE.format(serial="INTEGER"))

    def insert() -> None:
        connection = _sqlite_connection(path)
        for _ in range(inserts // CONNECTIONS):
            connection.execute(_INSERT)
        connection.close()

    threads = [threading.Thread(target=insert) for _ in range(CONNECTIONS)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    first.close()
    return inserts / seconds


def _sqlite_connection(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=LIMIT, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    return connection


def _run(*command: str) -> str:
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT, check=True
    ).stdout
