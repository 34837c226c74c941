"""All that is kept, in one database: requests, their chains and logs, who runs them, and who is alive."""

from spincycle_server.database.engine import DatabaseOptions
from spincycle_server.store.idempotency import CreatedBeforeError, IdempotencyKey
from spincycle_server.store.store import Store

__all__ = ["CreatedBeforeError", "DatabaseOptions", "IdempotencyKey", "Store"]
