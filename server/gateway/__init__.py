"""The JSON way in: routes from the descriptors, and the HTTP server that follows them."""

from server.gateway.app import GatewayApp
from server.gateway.cors import with_cors
from server.gateway.http_protocol import HttpLimits
from server.gateway.http_server import HttpServer

__all__ = ["GatewayApp", "HttpLimits", "HttpServer", "with_cors"]
