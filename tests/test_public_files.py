"""Which files with secrets every user may read or change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spincycle_server.config import Config, public_secret_files
from spincycle_server.config.notification_targets import parse_targets
from tests.e2e.processes import running


@pytest.mark.parametrize(
    ("mode", "is_public"), [(0o600, False), (0o640, False), (0o644, True), (0o602, True), (0o611, False)]
)
def test_a_file_that_others_may_read_or_change_is_public(tmp_path: Path, mode: int, is_public: bool) -> None:
    path = tmp_path / "secret"
    path.touch()
    path.chmod(mode)
    config = Config(
        cluster_key_file=str(path),
        database_url_file=str(path),
        mysql_dsn_file=str(path),
        server_key_file=str(path),
        rm_client_key_file=str(path),
        jr_client_key_file=str(path),
        mysql_key_file=str(path),
        server_cert_file=str(path),
        server_ca_file=str(path),
    )
    options = {
        "cluster.key_file",
        "database.url_file",
        "mysql.dsn_file",
        "server.tls.key_file",
        "rm_client.tls.key_file",
        "jr_client.tls.key_file",
        "mysql.tls.key_file",
    }
    assert public_secret_files(config) == (dict.fromkeys(options, str(path)) if is_public else {})


def test_the_secrets_of_notifications_are_files_too(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.touch(0o644)
    path.chmod(0o644)
    targets = parse_targets(
        json.dumps({"ops": {"url": "https://h", "secret_file": str(path), "events": ["failed"]}})
    )
    found = public_secret_files(Config(notifications_targets=targets))
    assert found == {"notifications.targets: ops": str(path)}


def test_a_missing_file_is_not_public(tmp_path: Path) -> None:
    assert public_secret_files(Config(cluster_key_file=str(tmp_path / "missing"))) == {}
    assert public_secret_files(Config()) == {}


def test_a_server_warns_of_a_public_key_and_does_not_log_it(tmp_path: Path) -> None:
    key = "k" * 43
    path = tmp_path / "cluster.key"
    path.write_text(key)
    path.chmod(0o644)
    with running(
        "request-manager",
        "--http=127.0.0.1:0",
        directory=tmp_path,
        environment={"SPINCYCLE_CLUSTER_KEY_FILE": str(path)},
    ) as server:
        server.address("request-manager", "http")
        (warning,) = [event for event in server.events if event["level"] == "warning" and "option" in event]
        assert (warning["option"], warning["file"]) == ("cluster.key_file", str(path))
        assert key not in server.log()
