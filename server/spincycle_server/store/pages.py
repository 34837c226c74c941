"""Pages: how many items fit into one response."""

from __future__ import annotations

PAGE_BYTES = 3 * 1024 * 1024
"""Bytes after which a page ends. gRPC clients accept messages of 4 MiB, and a page has at least one item."""


class PageRoom:
    """The room in one page.

    Args:
        max_items: The maximum number of items; 0 for no maximum.
        max_bytes: The maximum size of all items together, unless a single one is larger.
    """

    def __init__(self, max_items: int, max_bytes: int = PAGE_BYTES) -> None:
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._items = 0
        self._bytes = 0

    def take(self, size: int) -> bool:
        """Counts an item of `size` bytes if there is room for it. Returns whether there was."""
        if self._items and (self._items == self._max_items or self._bytes + size > self._max_bytes):
            return False
        self._items += 1
        self._bytes += size
        return True
