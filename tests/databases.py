"""Private database servers for tests: MariaDB and PostgreSQL from the installed binaries, on free ports.

A server is started once per test run, and can be killed and started again. Tests get their own databases in
it. Servers are ended by pid. If a binary is missing, tests are skipped, except in CI.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest
from sqlalchemy import MetaData, create_engine, delete, text
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from spincycle_server.database.engine import DatabaseOptions, make_engine, parse_url
from spincycle_server.store import migrations
from spincycle_server.store.schema import metadata
from tests.limits import COMMAND, PROCESS_END, PROCESS_START
from tests.ports import free_port

OPTIONS = DatabaseOptions(timeout=5.0)
"""How tests connect, unless they say otherwise."""

_numbers = itertools.count(1)
_kept_engines: dict[str, Engine] = {}
"""The engine of each database that `SharedServers.migrated` lends, by its URL."""


def find_binary(*names: str) -> str:
    """Returns the path of the first program that is installed. Skips the test if there is none.

    In CI, the test fails instead.
    """
    places = [
        *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True),
        Path("/usr/sbin"),
        Path("/usr/bin"),
    ]
    for name in names:
        found = shutil.which(name) or next(
            (str(place / name) for place in places if (place / name).exists()), None
        )
        if found:
            return found
    message = f"{names[0]} is not installed"
    if os.environ.get("CI"):
        raise AssertionError(message)
    pytest.skip(message)


class DatabaseServer(ABC):
    """One server with its files.

    Args:
        parent: The directory that gets the server's own directory. Default: the one for temporary files.
    """

    user: str
    admin_arguments: ClassVar[dict[str, Any]] = {}

    def __init__(self, parent: Path | None = None) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="spincycle-db-", dir=parent))
        self.directory.chmod(0o755)
        # Database servers refuse to run as root.
        self.account = self.user if os.geteuid() == 0 else None
        if self.account:
            owner = pwd.getpwnam(self.account)
            os.chown(self.directory, owner.pw_uid, owner.pw_gid)
        # A MariaDB server that starts deletes the temporary tables of others that use the same directory, and
        # a server whose temporary table is gone dies of signal 11.
        self.environment = {**os.environ, "TMPDIR": str(self.directory)}
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The main process of the server."""
        assert self._process is not None
        return self._process.pid

    @abstractmethod
    def make_files(self) -> None:
        """Creates the files of an empty server."""

    @abstractmethod
    def command(self) -> list[str]:
        """Returns the command that runs the server."""

    @abstractmethod
    def url(self, database: str) -> str:
        """Returns the URL of a database, as users write it."""

    @abstractmethod
    def admin_url(self) -> str:
        """Returns SQLAlchemy's URL of the database that always exists."""

    def run_once(self, *command: str) -> None:
        """Runs a program as the server's user."""
        done = subprocess.run(
            command,
            cwd=self.directory,
            env=self.environment,
            user=self.account,
            capture_output=True,
            timeout=COMMAND,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self) -> None:
        """Starts the server, and returns when it answers."""
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                cwd=self.directory,
                env=self.environment,
                user=self.account,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + PROCESS_START
        while True:
            try:
                self.execute("SELECT 1")
            except DBAPIError:
                log_text = (self.directory / "log").read_text(errors="replace")[-3000:]
                assert self._process.poll() is None, log_text
                assert time.monotonic() < deadline, log_text
                time.sleep(0.05)
            else:
                return

    def kill(self) -> None:
        """Ends all processes of the server by SIGKILL, and returns when they are gone.

        The processes of PostgreSQL have groups of their own. It does not start again while one of them lives.
        """
        if self._process is None:
            return
        children: list[psutil.Process] = []
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            os.kill(self._process.pid, signal.SIGSTOP)  # No more children.
            children = psutil.Process(self._process.pid).children(recursive=True)
            os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait(PROCESS_END)
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        _, alive = psutil.wait_procs(children, PROCESS_END)
        assert not alive, f"processes of the database server do not end: {alive}"
        self._process = None

    def signal(self, number: int) -> None:
        """Sends a signal to all processes of the server, as SIGSTOP, after which it hangs."""
        assert self._process is not None
        processes = [self._process.pid]
        processes += [child.pid for child in psutil.Process(self._process.pid).children(recursive=True)]
        for process in processes:
            os.kill(process, number)

    def close(self) -> None:
        """Ends the server and deletes its files. Fails if the server ended by itself."""
        why = self._why_ended()
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)
        assert not why, why

    def _why_ended(self) -> str:
        """Returns how the server ended by itself, with the end of its log; "" if it did not."""
        if self._process is None or self._process.poll() is None:
            return ""
        log = (self.directory / "log").read_text(errors="replace")[-3000:]
        return f"the database server ended by itself, exit status {self._process.returncode}:\n{log}"

    def execute(self, statement: str) -> None:
        """Runs a statement for the whole server, such as CREATE DATABASE."""
        engine = create_engine(
            self.admin_url(),
            poolclass=NullPool,
            isolation_level="AUTOCOMMIT",
            connect_args=self.admin_arguments,
        )
        with engine.connect() as connection:
            connection.execute(text(statement))

    def fresh_database(self) -> str:
        """Creates an empty database, and returns its URL."""
        why = self._why_ended()
        assert not why, why
        name = f"spincycle_{next(_numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)


class MariaDb(DatabaseServer):
    """A MariaDB server, with the default setting for durable commits."""

    user = "mysql"
    admin_arguments: ClassVar[dict[str, Any]] = {"ssl_disabled": True}

    def make_files(self) -> None:
        self.run_once(
            find_binary("mariadb-install-db", "mysql_install_db"),
            "--no-defaults",
            f"--datadir={self.directory / 'data'}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        )

    def command(self) -> list[str]:
        return [
            find_binary("mariadbd", "mysqld"),
            "--no-defaults",
            f"--datadir={self.directory / 'data'}",
            f"--socket={self.directory / 'socket'}",
            f"--pid-file={self.directory / 'pid'}",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            "--innodb-buffer-pool-size=128M",
            "--max-allowed-packet=64M",
            # Every statement and log write happens as usual, but the server calls no fsync. Tests kill the
            # server and never the machine, so the operating system still has what the server wrote.
            "--innodb-flush-method=nosync",
            "--debug-no-sync",
        ]

    def url(self, database: str) -> str:
        return f"mysql://root@127.0.0.1:{self.port}/{database}"

    def admin_url(self) -> str:
        return f"mysql+pymysql://root@127.0.0.1:{self.port}/mysql"


class PostgreSql(DatabaseServer):
    """A PostgreSQL server, with the default setting for durable commits."""

    user = "postgres"

    def make_files(self) -> None:
        self.run_once(
            find_binary("initdb"), "-D", str(self.directory / "data"), "-U", "spincycle", "-A", "trust",
            "--locale=C.UTF-8", "-E", "UTF8", "--no-sync",
        )  # fmt: skip

    def command(self) -> list[str]:
        return [
            find_binary("postgres"),
            "-D", str(self.directory / "data"),
            "-p", str(self.port),
            "-c", "listen_addresses=127.0.0.1",
            "-c", f"unix_socket_directories={self.directory}",
        ]  # fmt: skip

    def kill(self) -> None:
        super().kill()
        (self.directory / "data" / "postmaster.pid").unlink(missing_ok=True)

    def url(self, database: str) -> str:
        return f"postgresql://spincycle@127.0.0.1:{self.port}/{database}"

    def admin_url(self) -> str:
        return f"postgresql+psycopg://spincycle@127.0.0.1:{self.port}/postgres"


SERVERS: dict[str, type[DatabaseServer]] = {"mariadb": MariaDb, "postgresql": PostgreSql}
DATABASES = ("sqlite", *SERVERS)


_MEMORY = Path("/dev/shm")
_MEMORY_NEEDED = 4 << 30
"""Bytes that must be free before another server starts. All servers of a test run use 3.1 GiB."""


def memory_directory() -> Path | None:
    """Returns a directory whose files are in memory, with room for a server; None if there is none.

    There, a server that creates tables does not wait for the disk. Its files outlast its death, as on disk.
    """
    try:
        free = shutil.disk_usage(_MEMORY).free
    except FileNotFoundError:
        return None
    return _MEMORY if min(free, psutil.virtual_memory().available) > _MEMORY_NEEDED else None


@contextlib.contextmanager
def database_server(kind: str, parent: Path | None = None) -> Iterator[DatabaseServer]:
    """Runs a private server for a test that disturbs it, or for a benchmark.

    Args:
        kind: One of SERVERS.
        parent: As for `DatabaseServer`.
    """
    server = SERVERS[kind](parent)
    try:
        server.make_files()
        server.start()
        yield server
    finally:
        server.close()


class SharedServers:
    """The servers of a test run, each started when it is first needed."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._servers: dict[str, DatabaseServer] = {}
        self._migrated: dict[str, list[str]] = {}

    def get(self, kind: str) -> DatabaseServer:
        """Returns the running server of a kind."""
        if kind not in self._servers:
            self._servers[kind] = self._stack.enter_context(database_server(kind, memory_directory()))
        return self._servers[kind]

    def url(self, kind: str, directory: Path) -> str:
        """Returns the URL of a new, empty database of a kind. An SQLite file is in the directory."""
        if kind == "sqlite":
            return f"sqlite:///{directory / f'{next(_numbers)}.db'}"
        return self.get(kind).fresh_database()

    @contextlib.contextmanager
    def migrated(self, kind: str, directory: Path) -> Iterator[str]:
        """Lends an empty database with the current schema. Yields its URL.

        A database of MariaDB or PostgreSQL is emptied and lent again, because creating tables takes most of
        the time of a short test.
        """
        if kind == "sqlite":
            yield migrated_sqlite(directory / f"{next(_numbers)}.db")
            return
        free = self._migrated.setdefault(kind, [])
        if free:
            url = free.pop()
        else:
            url = self.url(kind, directory)
            migrate(url)
            _kept_engines[url] = engine_of(url)
        yield url
        _empty(_kept_engines[url])
        free.append(url)

    def close(self) -> None:
        """Ends all servers."""
        for url in itertools.chain.from_iterable(self._migrated.values()):
            _kept_engines.pop(url).dispose()
        self._stack.close()


def engine_of(url: str) -> Engine:
    """Returns an engine with two connections for transactions, as a store's writers use it."""
    return make_engine(parse_url(url), OPTIONS, connections=2, reads=False)


@contextlib.contextmanager
def engine_with(tables: MetaData, url: str) -> Iterator[Engine]:
    """Yields an engine of a database, in which it creates tables."""
    engine = engine_of(url)
    with engine.begin() as connection:
        tables.create_all(connection)
    yield engine
    engine.dispose()


@contextlib.contextmanager
def engine_beside(url: str) -> Iterator[Engine]:
    """Yields an engine that looks at a database beside the code under test.

    For a database that `SharedServers.migrated` has lent, it is one engine for all tests, because a new
    connection takes longer than most queries. Its transactions must be over at the end.
    """
    if url in _kept_engines:
        yield _kept_engines[url]
        return
    engine = engine_of(url)
    try:
        yield engine
    finally:
        engine.dispose()


def migrate(url: str) -> None:
    """Brings the schema of a database up to date."""
    engine = engine_of(url)
    with engine.begin() as connection:
        migrations.upgrade(connection)
    engine.dispose()


def migrated_sqlite(path: Path) -> str:
    """Creates an SQLite file with the current schema and no rows. Returns its URL.

    The file is a copy, because migrations would take longer than most tests.
    """
    path.touch(0o600)
    path.write_bytes(_migrated_file())
    return f"sqlite:///{path}"


@functools.cache
def _migrated_file() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "migrated.db")
        migrate(f"sqlite:///{path}")
        return path.read_bytes()


def _empty(engine: Engine) -> None:
    """Deletes all rows that the program stores. Waits for connections that still hold locks."""
    with engine.begin() as connection:
        for table in metadata.sorted_tables:
            connection.execute(delete(table))
