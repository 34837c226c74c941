"""Renders a job chain in the Mermaid language, which many Markdown viewers draw."""

from __future__ import annotations

from collections.abc import Iterable

from spincycle_grpc.render.labels import box_lines, is_noop, sequence_limits, sequence_title
from spincycle_grpc.render.layout import Kind, Layout
from spincycle_grpc.v1.job_pb2 import Job, JobChain

_SAFE = frozenset(" -_.,:/@()")


def to_mermaid(chain: JobChain) -> str:
    """Renders a job chain as a Mermaid flowchart."""
    lines = ["flowchart TD\n"]
    for step in Layout(chain).walk():
        if step.kind is Kind.END_SEQUENCE:
            lines.append("  end\n")
            continue
        if step.kind is Kind.BEGIN_SEQUENCE:
            label = _quoted([", ".join([sequence_title(step.job, chain), *sequence_limits(step.job, chain)])])
            lines.append(f"  subgraph sequence_{step.job.id}[{label}]\n")
        lines.append(f"  {_name(step.job.id)}{_box(step.job, chain)}\n")
    for job_id, job_ids in sorted(chain.adjacency_list.items()):
        lines.extend(f"  {_name(job_id)} --> {_name(child)}\n" for child in job_ids.ids)
    return "".join(lines)


def _name(job_id: str) -> str:
    # With the prefix, an id is never a Mermaid keyword like `end`.
    return f"job_{job_id}"


def _box(job: Job, chain: JobChain) -> str:
    if is_noop(job):
        return '((" "))'
    return f"[{_quoted(box_lines(job, chain))}]"


def _quoted(lines: Iterable[str]) -> str:
    """Returns quoted lines. Characters that may have a meaning in Mermaid become character codes."""
    safe = ("".join(c if c.isalnum() or c in _SAFE else f"#{ord(c)};" for c in line) for line in lines)
    return f'"{"<br/>".join(safe)}"'
