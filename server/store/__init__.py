"""All that is kept, in one database: requests, their chains and logs, who runs them, and who is alive."""

from server.store.engine import DatabaseOptions
from server.store.store import Store

__all__ = ["DatabaseOptions", "Store"]
