"""Measures how many events per second the state machine handles, by size and shape of the chain.

An event is the end of one try. It takes time linear in the edges of its job, so the rate must not fall
with the size of the chain. Sizes are interleaved, and the best of several rounds counts. Times are CPU
times of this process. Building the protobuf message of the chain is not timed.

Exit status: 1 if the rate at the largest size is below half of that at 1,000 jobs.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from spincycle_grpc.state import State
from spincycle_grpc.v1 import state_pb2
from spincycle_grpc.v1.job_pb2 import JobChain
from spincycle_server.chain import RunningChain

SIZES = (100, 1_000, 10_000, 50_000)
COMPARED = 1_000
LEAST_SHARE = 0.5
BREADTH = 10
"""The number of jobs in a layer of the lattice. Each depends on all jobs of the layer before it."""


def empty_chain(size: int) -> JobChain:
    """Returns a chain of jobs in one sequence, without edges."""
    chain = JobChain(request_id="bench")
    for number in range(size):
        job = chain.jobs[str(number)]
        job.id, job.name, job.type, job.state = str(number), "job", "job", state_pb2.STATE_PENDING
        job.sequence_id, job.retry = "0", 1
    return chain


def wide(size: int) -> JobChain:
    """Returns a chain in which all jobs but the first and the last run in parallel."""
    chain = empty_chain(size)
    for number in range(1, size - 1):
        chain.adjacency_list["0"].ids.append(str(number))
        chain.adjacency_list[str(number)].ids.append(str(size - 1))
    return chain


def deep(size: int) -> JobChain:
    """Returns a chain in which each job depends on the one before it."""
    chain = empty_chain(size)
    for number in range(size - 1):
        chain.adjacency_list[str(number)].ids.append(str(number + 1))
    return chain


def lattice(size: int) -> JobChain:
    """Returns a chain of layers of ten jobs. Each job depends on all ten jobs of the layer before."""
    chain = empty_chain(size)
    layers = [list(range(first, min(first + BREADTH, size - 1))) for first in range(1, size - 1, BREADTH)]
    for before, after in zip([[0], *layers], [*layers, [size - 1]], strict=True):
        for number in before:
            chain.adjacency_list[str(number)].ids.extend(map(str, after))
    return chain


SHAPES: dict[str, Callable[[int], JobChain]] = {"wide": wide, "deep": deep, "lattice": lattice}


def run(job_chain: JobChain) -> tuple[int, float]:
    """Runs a chain in which every tenth job fails once. Returns the number of events, and the CPU seconds."""
    running = RunningChain.new(job_chain)
    events = 0
    gc.collect()
    start = time.process_time()
    to_run = deque(running.start(0).run)
    while to_run:
        started = to_run.popleft()
        fails = started.number == 1 and started.job_id.endswith("7")
        actions = running.try_finished(started.job_id, State.FAIL if fails else State.COMPLETE, 0)
        to_run += actions.run
        events += 1
    seconds = time.process_time() - start
    if running.done is not State.COMPLETE:
        raise RuntimeError(f"the chain ended as {running.done}")
    return events, seconds


def main() -> int:
    """Prints the table. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each chain is run")
    parser.add_argument("--json", type=Path, help="a file for the results")
    options = parser.parse_args()

    chains = {(shape, size): make(size) for shape, make in SHAPES.items() for size in SIZES}
    best: dict[tuple[str, int], float] = dict.fromkeys(chains, 0.0)
    for _ in range(options.rounds):
        for key, job_chain in chains.items():
            repeats = max(1, COMPARED // key[1])
            events, seconds = map(sum, zip(*(run(job_chain) for _ in range(repeats)), strict=True))
            best[key] = max(best[key], events / seconds)
    print(f"events per second, best of {options.rounds} interleaved rounds")
    print(f"{'':8}" + "".join(f"{size:>12,}" for size in SIZES) + f"{'largest / 1,000':>18}")
    missed = []
    for shape in SHAPES:
        share = best[shape, SIZES[-1]] / best[shape, COMPARED]
        print(f"{shape:8}" + "".join(f"{best[shape, size]:12,.0f}" for size in SIZES) + f"{share:18.2f}")
        if share < LEAST_SHARE:
            missed.append(shape)
    if options.json:
        rates = [
            {"shape": shape, "jobs": size, "events_a_second": rate} for (shape, size), rate in best.items()
        ]
        options.json.write_text(json.dumps(rates, indent=2) + "\n")
    if missed:
        print(f"slower with size: {', '.join(missed)}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
