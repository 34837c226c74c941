"""The JSON way in: routes from the descriptors, and the HTTP server that follows them."""

from server.gateway.app import GatewayApp
from server.gateway.http_server import HttpServer

__all__ = ["GatewayApp", "HttpServer"]
