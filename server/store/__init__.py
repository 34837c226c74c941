"""All that is kept, in one database: requests, their chains and logs, who runs them, and who is alive."""

from server.store.engine import DatabaseOptions
from server.store.idempotency import CreatedBeforeError, IdempotencyKey
from server.store.store import Store

__all__ = ["CreatedBeforeError", "DatabaseOptions", "IdempotencyKey", "Store"]
