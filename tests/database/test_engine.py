"""Connecting to a database: TLS, the original's data source names, sockets, URL parameters."""

from __future__ import annotations

import asyncio
import datetime
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy import text

from spincycle_grpc.errors import InvalidArgumentError, UnavailableError
from spincycle_server.config import url_of_go_dsn
from spincycle_server.database.engine import make_engine, parse_url
from spincycle_server.maintenance.migrating import upgrade_database
from spincycle_server.store import DatabaseOptions, Store
from tests.databases import MariaDb, SharedServers
from tests.store.samples import create

OPTIONS = DatabaseOptions(timeout=5.0)


@dataclass(frozen=True)
class Certificates:
    """The files of an authority, and of certificates that it has signed."""

    directory: Path

    def file(self, name: str) -> str:
        return str(self.directory / name)

    @property
    def options(self) -> DatabaseOptions:
        return DatabaseOptions(
            timeout=5.0, ca_file=self.file("ca.pem"), cert_file=self.file("client.pem"),
            key_file=self.file("client.key"),
        )  # fmt: skip


def make_certificates(directory: Path) -> Certificates:
    now = datetime.datetime.now(datetime.UTC)
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])

    def write(name: str, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, is_authority: bool) -> None:
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(authority)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
            )
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True, key_cert_sign=is_authority, crl_sign=is_authority,
                    content_commitment=False, key_encipherment=False, data_encipherment=False,
                    key_agreement=False, encipher_only=False, decipher_only=False,
                ),
                critical=True,
            )
            .sign(authority_key, hashes.SHA256())
        )  # fmt: skip
        (directory / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (directory / f"{name}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )

    write("ca", authority, authority_key, is_authority=True)
    for name in ("server", "client"):
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        write(name, subject, ec.generate_private_key(ec.SECP256R1()), is_authority=False)
    return Certificates(directory)


class TlsMariaDb(MariaDb):
    """A MariaDB server that has a certificate."""

    def make_files(self) -> None:
        super().make_files()
        self.certificates = make_certificates(self.directory)
        for file in self.directory.iterdir():
            if file.suffix in (".pem", ".key"):
                os.chmod(file, 0o644)

    def command(self) -> list[str]:
        files = self.certificates
        return [
            *super().command(),
            f"--ssl-ca={files.file('ca.pem')}",
            f"--ssl-cert={files.file('server.pem')}",
            f"--ssl-key={files.file('server.key')}",
        ]


@pytest.fixture(scope="module")
def tls_server() -> Iterator[TlsMariaDb]:
    server = TlsMariaDb()
    try:
        server.make_files()
        server.start()
        server.execute("CREATE USER cycle IDENTIFIED BY 'p@ss:w/rd' REQUIRE X509")
        server.execute("GRANT ALL ON *.* TO cycle")
        yield server
    finally:
        server.close()


def scalar(url: str, options: DatabaseOptions, statement: str) -> object:
    engine = make_engine(parse_url(url), options, connections=1, reads=True)
    try:
        with engine.connect() as connection:
            return connection.scalar(text(statement))
    finally:
        engine.dispose()


async def test_mysql_with_certificates(tls_server: TlsMariaDb) -> None:
    database = tls_server.fresh_database().rpartition("/")[2]
    url = url_of_go_dsn(f"cycle:p@ss:w/rd@tcp(localhost:{tls_server.port})/{database}?parseTime=true")
    options = tls_server.certificates.options
    await asyncio.to_thread(upgrade_database, url, options)
    store = await Store.open(url, options)
    await create(store)
    await store.close()
    cipher = "SELECT variable_value FROM information_schema.session_status WHERE variable_name = 'Ssl_cipher'"
    assert scalar(url, options, cipher)
    with pytest.raises(UnavailableError, match="Access denied for user 'cycle'"):
        await Store.open(url, replace(options, cert_file="", key_file=""))


async def test_a_server_certificate_of_another_authority_is_refused(
    tls_server: TlsMariaDb, tmp_path: Path
) -> None:
    other = make_certificates(tmp_path)
    url = f"mysql://root@localhost:{tls_server.port}/mysql"
    with pytest.raises(UnavailableError, match="certificate verify failed"):
        await Store.open(url, other.options)
    # It is for localhost, not for this name of it.
    with pytest.raises(UnavailableError, match="IP address mismatch"):
        await Store.open(url.replace("localhost", "127.0.0.1"), tls_server.certificates.options)


def test_without_options_mysql_encrypts_and_loads_no_authorities(tls_server: TlsMariaDb) -> None:
    engine = make_engine(parse_url(tls_server.url("mysql")), OPTIONS, connections=1, reads=True)
    with engine.connect() as connection:
        [[_, cipher]] = connection.execute(text("SHOW STATUS LIKE 'Ssl_cipher'"))
        context = getattr(connection.connection.driver_connection, "ctx")  # noqa: B009 (the stubs lack it)
    engine.dispose()
    assert cipher
    assert context.cert_store_stats()["x509"] == 0


async def test_files_without_a_certificate_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("")
    for name in ("empty.pem", "none.pem"):
        options = DatabaseOptions(ca_file=str(tmp_path / name))
        with pytest.raises(InvalidArgumentError, match=r"options mysql\.tls\.\*"):
            await Store.open("mysql://root@localhost:1/x", options)


def test_a_data_source_name_with_a_socket(tls_server: TlsMariaDb) -> None:
    url = url_of_go_dsn(f"root@unix({tls_server.directory / 'socket'})/mysql")
    assert scalar(url, OPTIONS, "SELECT SUBSTRING_INDEX(USER(), '@', -1)") == "localhost"


def test_parameters_of_urls(database_servers: SharedServers, tmp_path: Path) -> None:
    url = database_servers.url("postgresql", tmp_path)
    name = "SELECT current_setting('application_name')"
    assert scalar(url, OPTIONS, name) == "spincycle"
    assert scalar(f"{url}?target_session_attrs=read-write", OPTIONS, name) == "spincycle"
    with pytest.raises(Exception, match="SSL"):
        scalar(f"{url}?sslmode=require", OPTIONS, name)
    socket = database_servers.get("postgresql").directory
    port = database_servers.get("postgresql").port
    by_socket = f"postgresql://spincycle@/postgres?host={socket}&port={port}"
    assert scalar(by_socket, OPTIONS, "SELECT inet_client_addr()") is None
    url = database_servers.url("mariadb", tmp_path)
    assert scalar(f"{url}?program_name=rm1", OPTIONS, "SELECT 1") == 1


def test_all_connections_have_the_required_session_settings(
    database_servers: SharedServers, tmp_path: Path
) -> None:
    url = database_servers.url("mariadb", tmp_path)
    assert scalar(url, OPTIONS, "SELECT @@session.time_zone") == "+00:00"
    assert scalar(url, OPTIONS, "SELECT @@innodb_lock_wait_timeout") == 5
    assert "STRICT_ALL_TABLES" in str(scalar(url, OPTIONS, "SELECT @@sql_mode"))
    url = database_servers.url("postgresql", tmp_path)
    assert scalar(url, OPTIONS, "SELECT current_setting('statement_timeout')") == "10s"
    assert scalar(url, OPTIONS, "SELECT current_setting('lock_timeout')") == "5s"
    url = database_servers.url("sqlite", tmp_path)
    assert scalar(url, OPTIONS, "PRAGMA synchronous") == 2
    assert scalar(url, OPTIONS, "PRAGMA journal_mode") == "wal"


def test_only_the_user_of_the_server_can_read_a_new_sqlite_file(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new.db'}"
    engine = make_engine(parse_url(url), OPTIONS, connections=1, reads=False)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE t (c int)"))
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    engine.dispose()
    assert modes == {"new.db": 0o600, "new.db-wal": 0o600, "new.db-shm": 0o600}


def test_the_mode_of_an_existing_sqlite_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    path.touch(0o640)
    assert scalar(f"sqlite:///{path}", OPTIONS, "SELECT 1") == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
