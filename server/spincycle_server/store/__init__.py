"""What a Request Manager keeps in its database: requests, job chains, job logs, runners and their leases."""

from spincycle_server.database.engine import DatabaseOptions
from spincycle_server.store.errors import CreatedBeforeError
from spincycle_server.store.idempotency_keys import IdempotencyKey
from spincycle_server.store.store import Store
from spincycle_server.store.suspects import StoredSuspect

__all__ = ["CreatedBeforeError", "DatabaseOptions", "IdempotencyKey", "Store", "StoredSuspect"]
