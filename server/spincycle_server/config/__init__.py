"""The configuration of the servers."""

from spincycle_server.config.addresses import advertised, mask_secrets, url_of_go_dsn
from spincycle_server.config.errors import ConfigError
from spincycle_server.config.loading import LoadedConfig, forget_environment, load_config, load_with_sources
from spincycle_server.config.options import Config
from spincycle_server.config.public_files import public_secret_files
from spincycle_server.config.secret_files import headers_of
from spincycle_server.config.service_manager import ServiceManagerOptions, take_service_manager_options

__all__ = [
    "Config",
    "ConfigError",
    "LoadedConfig",
    "ServiceManagerOptions",
    "advertised",
    "forget_environment",
    "headers_of",
    "load_config",
    "load_with_sources",
    "mask_secrets",
    "public_secret_files",
    "take_service_manager_options",
    "url_of_go_dsn",
]
