"""Renders a job chain as a text tree. The jobs of a sequence are indented below its first job.

A job directly follows the job on the line above, unless an arrow names other jobs.
"""

from __future__ import annotations

from collections.abc import Sequence

from spincycle_grpc.render.labels import args, limits, plain, sequence_limits, sequence_title, title
from spincycle_grpc.render.layout import Kind, Layout, Step
from spincycle_grpc.v1.job_pb2 import JobChain

_DEEPEST_INDENT = 30
_MOST_PARENTS = 4


def to_tree(chain: JobChain) -> str:
    """Renders a job chain as a text tree."""
    layout = Layout(chain)
    lines = [_heading(chain)]
    indents = [""]
    above = ""
    for step in layout.walk():
        if step.kind is Kind.END_SEQUENCE:
            indents.pop()
            continue
        indent = indents[-1]
        elbow = "└── " if step.is_last else "├── "
        lines.append(f"{indent}{elbow}{_line(step, chain, layout.parents[step.job.id], above)}")
        if step.kind is Kind.BEGIN_SEQUENCE:
            deeper = indent + ("    " if step.is_last else "│   ")
            indents.append(deeper if step.depth < _DEEPEST_INDENT else indent)
        above = step.job.id
    return "\n".join(lines) + "\n"


def _heading(chain: JobChain) -> str:
    words = [f"{len(chain.jobs):,} jobs"]
    if chain.request_id:
        words.append(f"request {plain(chain.request_id)}")
    if chain.timeout:
        words.append(f"timeout {plain(chain.timeout)}")
    return f"{', '.join(words)} (a job follows the job on the line above it, or the jobs after its <-)"


def _line(step: Step, chain: JobChain, parents: Sequence[str], above: str) -> str:
    job = step.job
    if step.kind is Kind.BEGIN_SEQUENCE:
        words = [f"{job.id} {sequence_title(job, chain)}", *sequence_limits(job, chain)]
        if step.depth > _DEEPEST_INDENT:
            words.append(f"{step.depth} deep")
        text = ", ".join(words)
    else:
        text = " ".join([", ".join([f"{job.id} {title(job, chain)}", *limits(job, chain)]), *args(job)])
    if list(parents) == [above] or not parents:
        return text
    more = len(parents) - _MOST_PARENTS
    listed = " ".join(parents[:_MOST_PARENTS]) + (f" and {more:,} more" if more > 0 else "")
    return f"{text}  <- {listed}"
