"""Assembles how a server recognizes the other servers of its installation, and refuses unsafe options."""

from __future__ import annotations

from collections.abc import Iterable

from spincycle_grpc.channels import is_this_machine
from spincycle_server.app.identity import users_are_authenticated
from spincycle_server.config import Config, ConfigError
from spincycle_server.identity import Cluster
from spincycle_server.identity.key_file import KeyFile, new_key
from spincycle_server.listening import Address


def combined_cluster(config: Config) -> Cluster:
    """Returns the cluster of a Request Manager and a Job Runner that share a process.

    Without a key of its own, the process makes one: nobody else can know it.

    Raises:
        SpinCycleError: The key cannot be read, or would be sent in plain text to other machines.
    """
    if config.cluster_key_file:
        runner = config.job_runner_addr, config.job_runner_grpc or config.job_runner_addr.for_grpc()
        _refuse_key_in_plain_text(config, runner)
        return _cluster(config)
    if config.cluster_open:
        return Cluster(is_open=True)
    keys = (new_key(),)
    return Cluster(
        keys=lambda: keys,
        certificates=config.cluster_certificates,
        is_private=not config.cluster_certificates,
    )


def request_manager_cluster(config: Config, addresses: Iterable[Address]) -> Cluster:
    """Returns the cluster of a Request Manager that runs by itself.

    Without any option, the server is open on loopback, as the original is. Whether a runner can be called
    without sending it the key in plain text is checked when it reports.

    Args:
        config: The options.
        addresses: The addresses on which the server listens.

    Raises:
        SpinCycleError: The server must know the other servers, but no option says how, or the key would be
            sent in plain text.
    """
    if not _knows_servers(config, addresses):
        return Cluster(is_open=True)
    if not config.cluster_key_file and not config.jr_client_tls.cert_file:
        raise _needs_certificate("jr_client.tls")
    return _cluster(config)


def job_runner_cluster(config: Config, addresses: Iterable[Address]) -> Cluster:
    """Returns the cluster of a Job Runner that runs by itself.

    The arguments and the errors are those of `request_manager_cluster`.
    """
    if not _knows_servers(config, addresses):
        return Cluster(is_open=True)
    if not config.cluster_key_file and not config.rm_client_tls.cert_file:
        raise _needs_certificate("rm_client.tls")
    remote = [address for address in config.request_manager_addresses if not is_this_machine(address)]
    if config.cluster_key_file and remote and not config.rm_client_tls:
        raise ConfigError(
            "option rm_client.tls: must be set, because the key of cluster.key_file would be sent to "
            f"{remote[0]} in plain text: set rm_client.tls.ca_file, or let the Request Manager listen on "
            "loopback"
        )
    return _cluster(config)


def _knows_servers(config: Config, addresses: Iterable[Address]) -> bool:
    """Returns whether an option says how servers recognize each other.

    Raises:
        ConfigError: None does, but the server must not be open; or an option cannot be used safely.
    """
    addresses = tuple(addresses)
    if config.cluster_open and not config.cluster_key_file:
        return False
    if config.cluster_key_file or config.cluster_certificates:
        _refuse_key_in_plain_text(config, addresses)
        return True
    if users_are_authenticated(config):
        raise _needs_key("users are authenticated")
    if _is_beyond_loopback(addresses):
        raise _needs_key("this server listens beyond loopback")
    return False


def _refuse_key_in_plain_text(config: Config, addresses: Iterable[Address]) -> None:
    if config.cluster_key_file and _is_beyond_loopback(addresses) and not config.server_tls:
        raise ConfigError(
            "option server.tls: must be set, because other servers would send the key of cluster.key_file in "
            "plain text: set server.tls.cert_file and server.tls.key_file, or listen on loopback"
        )


def _is_beyond_loopback(addresses: Iterable[Address]) -> bool:
    return not all(address.is_loopback for address in addresses)


def _needs_key(why: str) -> ConfigError:
    return ConfigError(
        f"option cluster.key_file: must be set, because {why}: give all servers of the installation "
        "the same key, list their certificates in cluster.certificates, or set cluster.open to true"
    )


def _needs_certificate(option: str) -> ConfigError:
    return ConfigError(
        "option cluster.certificates: this server needs a certificate for its calls to other servers: "
        f"set {option}.cert_file and {option}.key_file"
    )


def _cluster(config: Config) -> Cluster:
    """Returns a cluster whose servers identify themselves. If it is open, others need not."""
    keys = KeyFile(config.cluster_key_file) if config.cluster_key_file else tuple
    return Cluster(keys=keys, certificates=config.cluster_certificates, is_open=config.cluster_open)
