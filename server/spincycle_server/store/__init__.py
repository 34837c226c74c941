"""All that is kept, in one database: requests, their chains and logs, who runs them, and who is alive."""

from spincycle_server.database.engine import DatabaseOptions
from spincycle_server.store.errors import CreatedBeforeError
from spincycle_server.store.idempotency_keys import IdempotencyKey
from spincycle_server.store.store import Store

__all__ = ["CreatedBeforeError", "DatabaseOptions", "IdempotencyKey", "Store"]
