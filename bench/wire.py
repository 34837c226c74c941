"""Compares the JSON codec with `google.protobuf.json_format` on a chain of 1,000 jobs.

The benchmark measures writing and reading of both codecs in alternating rounds, because the speed of a
machine varies. The best round counts. Times are CPU times of this process. Each codec reads its own text,
and both write every field of the message.

The exit status is 1 if the codec misses a target.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from google.protobuf import json_format

from spincycle_grpc import wire
from spincycle_grpc.structs import fill_struct
from spincycle_grpc.v1 import job_pb2, state_pb2

HOSTS = 249
"""With four jobs per host and four noop jobs around them, the chain has 1,000 jobs."""

TARGETS = {"write": 4.0, "read": 8.0}


def job_chain() -> job_pb2.JobChain:
    """Returns a chain like that of `each` over hosts: a noop, two shell commands and a noop per host."""
    chain = job_pb2.JobChain(request_id="dc26aor8di16sqictj30", state=state_pb2.STATE_PENDING)

    def job(job_id: str, name: str, type_name: str, **fields: object) -> str:
        new = chain.jobs[job_id]
        new.id, new.name, new.type, new.state = job_id, name, type_name, state_pb2.STATE_PENDING
        new.sequence_id, new.retry = job_id[:3] + "0", 2
        new.retry_wait = "500ms"
        if fields:
            new.bytes = json.dumps({"cmd": fields["cmd"], "args": fields["args"]}).encode()
            fill_struct(new.args, fields, "args")
        return job_id

    job("zzz0", "request_start", "noop")
    first, last = job("zzz1", "sequence_start", "noop"), job("zzz2", "sequence_end", "noop")
    job("zzz3", "request_end", "noop")
    chain.adjacency_list["zzz0"].ids.append(first)
    chain.adjacency_list[last].ids.append("zzz3")
    for number in range(HOSTS):
        host = f"host-{number:04}.example.com"
        ids = [f"{number:03}{step}" for step in range(4)]
        job(ids[0], "sequence_start", "noop")
        job(ids[1], "drain", "shell-command", cmd="drain", args=f"--host {host}", host=host, wait=30)
        job(ids[2], "restart", "shell-command", cmd="systemctl", args="restart web", host=host, force=False)
        job(ids[3], "sequence_end", "noop")
        for before, after in zip([first, *ids], [*ids, last], strict=True):
            chain.adjacency_list[before].ids.append(after)
    return chain


def best_of(contenders: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Returns the CPU seconds of the best round of each contender."""
    best = dict.fromkeys(contenders, float("inf"))
    for _ in range(rounds):
        for name, run in contenders.items():
            start = time.process_time()
            run()
            best[name] = min(best[name], time.process_time() - start)
    return best


def main() -> int:
    """Prints the results. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40, help="number of rounds")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    options = parser.parse_args()

    chain = job_chain()
    ours = wire.encode(chain)
    theirs = json_format.MessageToJson(chain, always_print_fields_with_no_presence=True)
    if wire.decode(ours, job_pb2.JobChain) != chain or json_format.Parse(theirs, job_pb2.JobChain()) != chain:
        raise AssertionError("a codec changed the message")
    best = best_of(
        {
            "write": lambda: wire.encode(chain),
            "write, json_format": lambda: json_format.MessageToJson(
                chain, always_print_fields_with_no_presence=True
            ),
            "read": lambda: wire.decode(ours, job_pb2.JobChain),
            "read, json_format": lambda: json_format.Parse(theirs, job_pb2.JobChain()),
        },
        options.rounds,
    )
    print(f"{len(chain.jobs)} jobs, {len(ours)} bytes; best of {options.rounds} interleaved rounds")
    print(f"{'':8}{'this codec':>12}{'json_format':>14}{'ratio':>8}{'target':>8}")
    results = {}
    for name, target in TARGETS.items():
        own, other = best[name], best[f"{name}, json_format"]
        results[name] = {"seconds": own, "json_format_seconds": other, "ratio": other / own, "target": target}
        print(f"{name:8}{own * 1e3:9.2f} ms{other * 1e3:11.2f} ms{other / own:7.1f}x{target:7.1f}x")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    missed = [name for name, result in results.items() if result["ratio"] < result["target"]]
    if missed:
        print(f"too slow: {', '.join(missed)}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
