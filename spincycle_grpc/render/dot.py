"""Renders a job chain in Graphviz's DOT language, with a box per job and a cluster per sequence."""

from __future__ import annotations

from spincycle_grpc.render.labels import args, box_lines, is_noop, sequence_limits, sequence_title
from spincycle_grpc.render.layout import Kind, Layout
from spincycle_grpc.v1.job_pb2 import Job, JobChain

_HEAD = """digraph chain {
  rankdir=TB;
  node [shape=box, style=rounded, fontname="sans-serif", fontsize=11];
  graph [fontname="sans-serif", fontsize=10, color=gray60, style=rounded, labeljust=l];
"""


def to_dot(chain: JobChain) -> str:
    """Renders a job chain as a Graphviz graph."""
    lines = [_HEAD]
    for step in Layout(chain).walk():
        if step.kind is Kind.END_SEQUENCE:
            lines.append("  }\n")
            continue
        if step.kind is Kind.BEGIN_SEQUENCE:
            label = _quoted("\n".join([sequence_title(step.job, chain), *sequence_limits(step.job, chain)]))
            lines.append(f"  subgraph {_quoted(f'cluster_{step.job.id}')} {{\n  label={label};\n")
        lines.append(f"  {_quoted(step.job.id)} [{_looks(step.job, chain)}];\n")
    for job_id, job_ids in sorted(chain.adjacency_list.items()):
        lines.extend(f"  {_quoted(job_id)} -> {_quoted(child)};\n" for child in job_ids.ids)
    lines.append("}\n")
    return "".join(lines)


def _looks(job: Job, chain: JobChain) -> str:
    if is_noop(job):
        return f'shape=circle, label="", width=0.15, tooltip={_quoted(f"{job.id} noop")}'
    label = _quoted("\n".join(box_lines(job, chain)))
    return f"label={label}, tooltip={_quoted(' '.join([job.id, *args(job)]))}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
