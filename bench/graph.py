"""Measures how many jobs per second the builder makes and how much memory a job takes, by size and shape.

Times are CPU times of this process. The cases are interleaved, and the best of several rounds counts,
because the speed of a machine varies. Memory is the growth of a fresh process while it builds 200,000 jobs
and holds them.

Exit status: 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spincycle_server.builtin_jobs import builtin_factory
from spincycle_server.graph import ChainBuilder
from spincycle_server.specs.parser import parse_specs

SIZES = (100, 1_000, 10_000, 50_000)
COMPARED = 1_000
LEAST_SHARE = 0.5
MOST_MEMORY = 1.25
SECONDS_FOR_TEN_THOUSAND = 2.0
JOBS_HELD = 200_000
NESTED = 200
NODES = 2_000
SHAPES = {"each": "", "parallel 1": "1", "parallel 2": "2", "parallel 10": "10"}

HOST = """
  host:
    args: {required: [{name: host}]}
    nodes:
      drain: {category: job, type: shell-command, args: [{expected: cmd, given: host}]}
      restart: {category: job, type: shell-command, args: [{expected: cmd, given: host}], deps: [drain]}
"""


@dataclass(frozen=True)
class Case:
    """One request: its name in the table, the number of its elements, its type and its args."""

    shape: str
    elements: int
    request_type: str
    args: Mapping[str, Any]


def cases() -> list[Case]:
    """Returns all requests that are built."""
    found = [
        Case(shape, size, shape, {"hosts": [f"host-{number:05}" for number in range(size)]})
        for shape in SHAPES
        for size in SIZES
    ]
    return [*found, Case("nested", NESTED, "nested-0", {}), Case("nodes", NODES, "nodes", {})]


def new_builder() -> ChainBuilder:
    """Returns a builder of the specs that all cases are built from."""
    text = "sequences:\n" + HOST
    for shape, parallel in SHAPES.items():
        limit = f", parallel: {parallel}" if parallel else ""
        text += (
            f"  {shape}: {{request: true, args: {{required: [{{name: hosts}}]}}, nodes: "
            f'{{n: {{category: sequence, type: host, each: ["hosts:host"]{limit}}}}}}}\n'
        )
    for depth in range(NESTED):
        inner = f"sequence, type: nested-{depth + 1}" if depth < NESTED - 1 else "job, type: noop"
        request = str(depth == 0).lower()
        text += f"  nested-{depth}: {{request: {request}, nodes: {{n: {{category: {inner}}}}}}}\n"
    text += "  nodes:\n    request: true\n    nodes:\n"
    for index in range(NODES):
        deps = f", deps: [n{index - 1}]" if index else ""
        text += f"      n{index}: {{category: job, type: noop{deps}}}\n"
    parsed = parse_specs({"bench.yaml": text.encode()})
    if parsed.problems:
        raise RuntimeError(str(parsed.problems[0]))
    return ChainBuilder(parsed.specs, builtin_factory, max_jobs=1_000_000)


def build(builder: ChainBuilder, case: Case) -> tuple[int, float]:
    """Builds a request. Returns the number of its jobs, and the CPU seconds."""
    gc.collect()
    start = time.process_time()
    built = builder.build(case.request_type, case.args, "request")
    seconds = time.process_time() - start
    return len(built.job_chain.jobs), seconds


def memory_of_a_job(index: int) -> float:
    """Returns the bytes per job by which this process grows while it builds a case repeatedly.

    It builds and holds about the same number of jobs for every case. So the spare memory that a process has
    at the start distorts all results equally.
    """
    builder, case = new_builder(), cases()[index]
    gc.collect()
    before = _largest_size()
    held: list[Any] = []
    jobs = 0
    while jobs < JOBS_HELD:
        held.append(builder.build(case.request_type, case.args, "request"))
        jobs += len(held[-1].job_chain.jobs)
    return (_largest_size() - before) / jobs


def _largest_size() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no line VmHWM")


def measured(rounds: int) -> list[dict[str, Any]]:
    """Returns a row for each case."""
    builder, all_cases = new_builder(), cases()
    best: list[tuple[int, float]] = [(0, float("inf"))] * len(all_cases)
    for _ in range(rounds):
        for index, case in enumerate(all_cases):
            for _ in range(max(1, COMPARED // case.elements)):
                best[index] = min(best[index], build(builder, case), key=lambda one: one[1])
    rows = []
    for index, (case, (jobs, seconds)) in enumerate(zip(all_cases, best, strict=True)):
        command = [sys.executable, __file__, f"--memory-of={index}"]
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
        rows.append(
            {
                "shape": case.shape,
                "elements": case.elements,
                "jobs": jobs,
                "seconds": seconds,
                "jobs_a_second": jobs / seconds,
                "bytes_a_job": float(told.stdout),
            }
        )
    return rows


def missed_targets(rows: list[dict[str, Any]]) -> list[str]:
    """Returns a phrase for each missed target."""
    missed = []
    by_case = {(row["shape"], row["elements"]): row for row in rows}
    for shape in SHAPES:
        compared, largest = by_case[shape, COMPARED], by_case[shape, SIZES[-1]]
        if largest["jobs_a_second"] < LEAST_SHARE * compared["jobs_a_second"]:
            missed.append(f"{shape}: slower with size")
        if largest["bytes_a_job"] > MOST_MEMORY * compared["bytes_a_job"]:
            missed.append(f"{shape}: more memory per job with size")
    if by_case["each", 10_000]["seconds"] > SECONDS_FOR_TEN_THOUSAND:
        missed.append(f"10,000 hosts take more than {SECONDS_FOR_TEN_THOUSAND:g} s")
    return missed


def main() -> int:
    """Prints the table. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often each chain is built")
    parser.add_argument("--json", type=Path, help="a file for the results")
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of is not None:
        print(memory_of_a_job(options.memory_of))
        return 0
    rows = measured(options.rounds)
    print(f"CPU time, best of {options.rounds} interleaved rounds")
    print(f"{'':12}{'elements':>9}{'jobs':>9}{'seconds':>9}{'jobs/second':>15}{'bytes/job':>13}")
    for row in rows:
        print(
            f"{row['shape']:12}{row['elements']:9,}{row['jobs']:9,}{row['seconds']:9.3f}"
            f"{row['jobs_a_second']:15,.0f}{row['bytes_a_job']:13,.0f}"
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    missed = missed_targets(rows)
    if missed:
        print("missed: " + "; ".join(missed))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
