"""The web page: serves its built files, and signs browsers in. The page itself uses the public API alone."""

from spincycle_server.web.app import WebApp

__all__ = ["WebApp"]
