"""What the programs of `bench.peers` have in common: clients that each run one workflow after another.

A program writes one line of JSON when it is ready. Then it reads orders from its standard input, runs the
clients of each, and answers with a line of JSON. It imports nothing of this project, because it may run in
another environment.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import IO


def own_output() -> IO[str]:
    """Returns the standard output for answers. Whatever else prints goes to the log from now on."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return answers


async def run_clients(workflow: Callable[[], Awaitable[None]], clients: int, seconds: float) -> list[float]:
    """Runs clients that each begin a workflow when their previous one is complete.

    Args:
        workflow: Creates a workflow, and returns when it is complete.
        clients: The number of clients.
        seconds: How long clients begin workflows. The last ones end later.

    Returns:
        The seconds that each workflow took, from before it was created until it was complete.
    """
    took: list[float] = []
    end = time.perf_counter() + seconds

    async def client() -> None:
        while (began := time.perf_counter()) < end:
            await workflow()
            took.append(time.perf_counter() - began)

    await asyncio.gather(*(client() for _ in range(clients)))
    return took


async def answer_orders(
    answers: IO[str], workflow: Callable[[], Awaitable[None]], begin: Callable[[], None] = lambda: None
) -> None:
    """Answers orders until the input ends.

    Args:
        answers: Where answers are written.
        workflow: As for `run_clients`.
        begin: Is called before each order, so that no measurement depends on the one before.
    """
    print(json.dumps({"ready": True}), file=answers)
    while line := await asyncio.to_thread(sys.stdin.readline):
        order = json.loads(line)
        begin()
        took = await run_clients(workflow, order["clients"], order["seconds"])
        print(json.dumps({"seconds": took}), file=answers)
