"""Flows of Prefect and their clients, for `bench.peers`. Settings come from the environment.

Flows run in this process, which is the fastest of the ways that the documents of Prefect show. A deployment
would start a process for each flow.
"""

from __future__ import annotations

import asyncio

from prefect import flow, task

from bench.peer_programs.answers import answer_orders, own_output


async def noop(number: int) -> None:
    """Does nothing. Prefect keeps its result, so that a flow that runs again does not repeat it.

    Args:
        number: Differs within a flow. A task with the same arguments would not run again.
    """


step = task(name="noop", persist_result=True)(noop)


async def three_steps() -> None:
    """Runs three tasks, one after the other."""
    for number in range(3):
        await step(number)


three_tasks = flow(name="three-steps")(three_steps)


async def main() -> None:
    """Runs flows, and waits for the end of each."""
    await answer_orders(own_output(), three_tasks)


if __name__ == "__main__":
    asyncio.run(main())
