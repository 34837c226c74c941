"""The JSON way in: routes from the descriptors, and the HTTP server that follows them."""

from spincycle_server.gateway.app import GatewayApp
from spincycle_server.gateway.cors import with_cors
from spincycle_server.gateway.http_protocol import HttpLimits
from spincycle_server.gateway.http_server import HttpServer

__all__ = ["GatewayApp", "HttpLimits", "HttpServer", "with_cors"]
