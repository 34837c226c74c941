"""A model of how many requests a second an installation carries with some number of cores.

It adds up the CPU time of one request in each process. A number of cores can carry as many requests as they
have CPU time for, and a process that runs Python at most one core's worth. An overloaded machine uses only a
share of its cores, because processes also wait for each other and for the disk. That share is measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

BUSIEST = 0.95
"""The share of a core that one process with one event loop can use at most."""


class Costs(NamedTuple):
    """The CPU time of one request in seconds, by where it is used.

    Attributes:
        manager: In all workers of the Request Manager.
        runner: In the Job Runner.
        database: In the database server.
        commits: Transactions of the database for one request.
    """

    manager: float
    runner: float
    database: float
    commits: float


class Prediction(NamedTuple):
    """What some number of cores carries.

    Attributes:
        cores: The cores of the machine, or of all machines together.
        workers: How many workers of Request Managers that needs.
        runners: How many Job Runners that needs.
        rate: Requests a second.
        limit: What is used up first: "cores", or "commits" of the database.
        shares: The share of the cores that each part uses at that rate.
    """

    cores: int
    workers: int
    runners: int
    rate: float
    limit: str
    shares: Mapping[str, float]


def use_of(costs: Costs, cores: float, rate: float) -> float:
    """Returns the share of some cores that a measured rate of requests has used."""
    return rate * (costs.manager + costs.runner + costs.database) / cores


def rate_of(costs: Costs, *, cores: float, use: float, workers: int, runners: int) -> float:
    """Returns the requests a second that an installation carries.

    Args:
        costs: What one request costs.
        cores: The cores that servers and database share.
        use: The share of the cores that an overloaded machine uses.
        workers: The workers of Request Managers.
        runners: The Job Runners.
    """
    everything = costs.manager + costs.runner + costs.database
    return min(
        use * cores / everything,
        BUSIEST * workers / costs.manager,
        BUSIEST * runners / costs.runner,
    )


def predict(costs: Costs, cores: int, *, use: float, most_commits: float) -> Prediction:
    """Returns what some cores carry with as many workers and runners as that needs.

    Args:
        costs: What one request costs.
        cores: The cores that servers and database share.
        use: The share of the cores that an overloaded machine uses.
        most_commits: The transactions a second that the disk of the database makes durable.
    """
    by_cores = use * cores / (costs.manager + costs.runner + costs.database)
    by_commits = most_commits / costs.commits if costs.commits else math.inf
    rate = min(by_cores, by_commits)
    return Prediction(
        cores,
        max(1, math.ceil(rate * costs.manager / BUSIEST)),
        max(1, math.ceil(rate * costs.runner / BUSIEST)),
        rate,
        "cores" if by_cores <= by_commits else "commits",
        {
            "request manager": rate * costs.manager / cores,
            "job runner": rate * costs.runner / cores,
            "database": rate * costs.database / cores,
        },
    )


def median_costs(costs: Sequence[Costs]) -> Costs:
    """Returns the median of each cost."""
    return Costs(*(sorted(values)[len(values) // 2] for values in zip(*costs, strict=True)))
