"""Which options servers refuse, because strangers could call methods for servers or read the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from spincycle_server.app.cluster import combined_cluster, job_runner_cluster, request_manager_cluster
from spincycle_server.config import Config, ConfigError
from spincycle_server.identity import Cluster, Credentials
from spincycle_server.listening import Address

LOOPBACK = [Address("127.0.0.1", 1), Address("::1", 2), Address("localhost", 3)]
ANYWHERE = [Address("127.0.0.1", 1), Address("0.0.0.0", 2)]
LISTED = ("runner.example.com",)


@pytest.fixture
def key_file(tmp_path: Path) -> str:
    path = tmp_path / "cluster.key"
    path.write_text("k" * 40)
    return str(path)


def is_open(cluster: Cluster) -> bool:
    return cluster.admits(Credentials())


def test_separate_servers_without_options_are_open_on_loopback() -> None:
    assert is_open(request_manager_cluster(Config(), LOOPBACK))
    assert is_open(job_runner_cluster(Config(), LOOPBACK))


@pytest.mark.parametrize("options", [{"auth_plugin": "deny:Plugin"}, {"auth_methods": ("token",)}])
def test_separate_servers_that_authenticate_users_need_a_key(options: dict[str, object]) -> None:
    config = Config(**options)  # type: ignore[arg-type]
    for make in (request_manager_cluster, job_runner_cluster):
        with pytest.raises(ConfigError, match=r"option cluster\.key_file: .* users are authenticated"):
            make(config, LOOPBACK)


def test_separate_servers_beyond_loopback_need_a_key() -> None:
    for make in (request_manager_cluster, job_runner_cluster):
        with pytest.raises(ConfigError, match=r"option cluster\.key_file: .* listens beyond loopback"):
            make(Config(), ANYWHERE)


def test_an_option_opens_every_server() -> None:
    config = Config(cluster_open=True, auth_plugin="deny:Plugin", cluster_certificates=LISTED)
    assert is_open(request_manager_cluster(config, ANYWHERE))
    assert is_open(job_runner_cluster(config, ANYWHERE))
    assert is_open(combined_cluster(config))


def test_an_open_server_still_sends_its_key_so_that_others_can_be_closed_first(key_file: str) -> None:
    config = Config(cluster_open=True, cluster_key_file=key_file)
    closed = request_manager_cluster(Config(cluster_key_file=key_file), LOOPBACK)
    for cluster in (
        request_manager_cluster(config, LOOPBACK),
        job_runner_cluster(config, LOOPBACK),
        combined_cluster(config),
    ):
        assert is_open(cluster)
        assert closed.admits(Credentials(dict(cluster.metadata())))
    remote = Config(cluster_open=True, cluster_key_file=key_file, rm_client_grpc=("rm.example.com:2",))
    with pytest.raises(ConfigError, match=r"option rm_client\.tls: .* plain text"):
        job_runner_cluster(remote, LOOPBACK)


def test_a_key_closes_separate_servers(key_file: str) -> None:
    config = Config(cluster_key_file=key_file)
    assert not is_open(request_manager_cluster(config, LOOPBACK))
    assert not is_open(job_runner_cluster(config, LOOPBACK))


def test_a_server_with_a_key_listens_beyond_loopback_only_with_tls(key_file: str) -> None:
    plain = Config(cluster_key_file=key_file)
    tls = Config(cluster_key_file=key_file, server_cert_file="cert.pem", server_key_file="key.pem")
    for make in (request_manager_cluster, job_runner_cluster):
        with pytest.raises(ConfigError, match=r"option server\.tls: .* plain text"):
            make(plain, ANYWHERE)
        assert not is_open(make(tls, ANYWHERE))


@pytest.mark.parametrize("where", ["rm_client_grpc", "rm_client_url"])
def test_a_job_runner_does_not_send_the_key_in_plain_text(key_file: str, where: str) -> None:
    def config(*addresses: str, ca_file: str = "") -> Config:
        scheme = "http://" if where == "rm_client_url" else ""
        options = {where: tuple(f"{scheme}{address}" for address in addresses)}
        return Config(cluster_key_file=key_file, rm_client_ca_file=ca_file, **options)  # type: ignore[arg-type]

    assert job_runner_cluster(config("127.0.0.1:1", "localhost:2"), LOOPBACK).metadata()
    with pytest.raises(ConfigError, match=r"option rm_client\.tls: .* plain text"):
        job_runner_cluster(config("127.0.0.1:1", "rm.example.com:2"), LOOPBACK)
    assert job_runner_cluster(config("rm.example.com:2", ca_file="ca.pem"), LOOPBACK).metadata()


def test_a_job_runner_may_send_the_key_over_a_unix_socket(key_file: str) -> None:
    config = Config(cluster_key_file=key_file, rm_client_grpc=("unix:/run/spincycle.sock",))
    assert job_runner_cluster(config, LOOPBACK).metadata()


def test_listed_certificates_need_a_certificate_of_the_server() -> None:
    served = {"server_cert_file": "c.pem", "server_key_file": "k.pem", "server_ca_file": "ca.pem"}
    config = Config(cluster_certificates=LISTED, **served)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"set jr_client\.tls\.cert_file"):
        request_manager_cluster(config, ANYWHERE)
    with pytest.raises(ConfigError, match=r"set rm_client\.tls\.cert_file"):
        job_runner_cluster(config, ANYWHERE)
    called = {"jr_client_cert_file": "c.pem", "rm_client_cert_file": "c.pem"}
    config = Config(cluster_certificates=LISTED, **served, **called)  # type: ignore[arg-type]
    assert not is_open(request_manager_cluster(config, ANYWHERE))
    assert not is_open(job_runner_cluster(config, ANYWHERE))


def test_combined_servers_have_a_key_that_nobody_else_knows() -> None:
    one, other = combined_cluster(Config()), combined_cluster(Config())
    assert one.is_private
    assert not is_open(one)
    assert one.admits(Credentials(dict(one.metadata())))
    assert not one.admits(Credentials(dict(other.metadata())))


def test_combined_servers_with_listed_certificates_are_not_alone() -> None:
    assert not combined_cluster(Config(cluster_certificates=LISTED)).is_private


def test_combined_servers_share_the_key_of_a_file(key_file: str) -> None:
    config = Config(cluster_key_file=key_file)
    one, other = combined_cluster(config), combined_cluster(config)
    assert not one.is_private
    assert one.admits(Credentials(dict(other.metadata())))


def test_combined_servers_with_a_key_file_do_not_send_it_in_plain_text(key_file: str) -> None:
    def config(**options: str) -> Config:
        runner = Address("0.0.0.0", 32307)
        return Config(cluster_key_file=key_file, job_runner_addr=runner, **options)  # type: ignore[arg-type]

    served = {"server_cert_file": "c.pem", "server_key_file": "k.pem"}
    with pytest.raises(ConfigError, match=r"option server\.tls: .* plain text"):
        combined_cluster(config())
    assert not is_open(combined_cluster(config(**served)))  # They use loopback inside the process.


def test_combined_servers_without_a_key_file_may_listen_anywhere() -> None:
    runner = Address("0.0.0.0", 32307)
    assert combined_cluster(Config(job_runner_addr=runner)).is_private
