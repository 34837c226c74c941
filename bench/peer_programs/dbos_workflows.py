"""Workflows of DBOS and their clients, for `bench.peers`.

Its argument is the URL of the database. DBOS is a library, so workflows run in this process, as its documents
show it for async applications. The settings are the defaults: a pool of 20 connections, and notifications of
the database instead of polling. The documents for production advise no others for such workflows.
"""

from __future__ import annotations

import asyncio
import os
import sys

from dbos import DBOS, DBOSConfig

from bench.peer_programs.answers import answer_orders, own_output


async def noop(number: int) -> None:
    """Does nothing. DBOS stores its result before the next step begins."""


step = DBOS.step(name="noop")(noop)


async def three_steps() -> None:
    """Runs three steps, one after the other."""
    for number in range(3):
        await step(number)


workflow = DBOS.workflow(name="three_steps")(three_steps)


async def main() -> None:
    """Runs workflows, and waits for the result of each."""
    (url,) = sys.argv[1:]
    answers = own_output()
    config = DBOSConfig(
        name="bench-peers", system_database_url=url, executor_id=str(os.getpid()), log_level="WARNING"
    )
    DBOS(config=config)
    DBOS.launch()

    async def run() -> None:
        handle = await DBOS.start_workflow_async(workflow)
        await handle.get_result()

    try:
        await answer_orders(answers, run)
    finally:
        DBOS.destroy()


if __name__ == "__main__":
    asyncio.run(main())
