"""What the Request Manager keeps: schema, migrations, and the Store that reads and writes it."""

from server.store.store import Store

__all__ = ["Store"]
