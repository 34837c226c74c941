"""A Request Manager that notes when a create passes each step, for `bench.one_client`.

It runs as `python -m bench.marked_manager request-manager ...`. At its end it writes the marks to the file
that the variable BENCH_MARKS names: JSON, a list of [nanoseconds of the monotonic clock, step].
"""

from __future__ import annotations

import atexit
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spincycle_server.__main__ import main
from spincycle_server.gateway.answer_transport import AnswerTransport
from spincycle_server.gateway.http_protocol import HttpProtocol
from spincycle_server.request_manager.service import RequestManagerService
from spincycle_server.store.batches import BatchCommitter
from spincycle_server.store.creation import CreateRequest
from spincycle_server.store.group_commit import GroupCommitWriter

MARKS = "BENCH_MARKS"

_marks: list[tuple[int, str]] = []
_batch = threading.local()  # Whether the thread commits creations.


def _mark(step: str) -> None:
    _marks.append((time.monotonic_ns(), step))


def _before(owner: type, name: str, step: str, concerns: Callable[..., bool] = lambda *_: True) -> None:
    """Marks the step at the beginning of each call of a method that concerns a create."""
    method = getattr(owner, name)

    def marked(*args: Any, **named: Any) -> Any:
        if concerns(*args):
            _mark(step)
        return method(*args, **named)

    setattr(owner, name, marked)


def _mark_batches() -> None:
    """Marks when a thread takes creations, sends their transaction, and has the answer of the database."""
    run, commit = BatchCommitter.run, BatchCommitter.commit

    def marked_run(self: BatchCommitter, writes: Any) -> Any:
        _batch.creates = isinstance(writes[0], CreateRequest)
        if _batch.creates:
            _mark("taken")
        return run(self, writes)

    def marked_commit(self: BatchCommitter, transaction: Any) -> None:
        if _batch.creates:
            _mark("sent")
        commit(self, transaction)
        if _batch.creates:
            _mark("committed")

    setattr(BatchCommitter, "run", marked_run)  # noqa: B010 (mypy lets nobody assign a method)
    setattr(BatchCommitter, "commit", marked_commit)  # noqa: B010


def _write() -> None:
    Path(os.environ[MARKS]).write_text(json.dumps(_marks))


if __name__ == "__main__":
    _before(HttpProtocol, "data_received", "received")
    _before(RequestManagerService, "Create", "called")
    _before(GroupCommitWriter, "write", "queued", lambda _, write: isinstance(write, CreateRequest))
    _before(
        GroupCommitWriter,
        "_answer",
        "resumed",
        lambda _, batch, *__: isinstance(batch[0].write, CreateRequest),
    )
    _before(AnswerTransport, "write", "answered")
    _mark_batches()
    atexit.register(_write)
    main()
