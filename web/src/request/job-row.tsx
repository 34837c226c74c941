/** One row of the tree: a job, or a sequence with the sums of what is in it. */

import type { Axis } from "../model/axis";
import type { JobRecord } from "../model/job-record";
import type { Row } from "../model/rows";
import { COMPLETE, PENDING, stateLabel } from "../model/states";
import type { Summary } from "../model/summary";
import { durationText } from "../model/times";
import { Badge } from "../parts/badge";
import { TimeBar } from "./time-bar";

// Pixels, as in the style.
export const ROW_HEIGHT = 30;
export const HEAD_HEIGHT = 32;

export const FINALLY = "Runs after the last try of the sequence, however that ended";

interface Props {
  row: Row;
  index: number;
  record: JobRecord;
  summary: Summary | undefined;
  axis: Axis;
  now: number;
  /** What a job without a state is called. */
  pending: string;
  isActive: boolean;
  isSelected: boolean;
  onActivate: () => void;
}

export function JobRow({
  row,
  index,
  record,
  summary,
  axis,
  now,
  pending,
  isActive,
  isSelected,
  onActivate,
}: Props) {
  const { node, isOpen } = row;
  if (!summary) return null;
  const tries = node.job
    ? (record.tries.get(node.key)?.length ?? 0) + Number(record.running.has(node.key))
    : 0;
  const classes = ["tree-row", node.job ? "" : "tree-sequence", isActive ? "is-active" : ""];
  return (
    <div
      id={`row-${node.key}`}
      class={classes.filter(Boolean).join(" ")}
      role="row"
      aria-level={node.level}
      aria-rowindex={index + 2}
      aria-expanded={node.job ? undefined : isOpen}
      aria-selected={isSelected}
      onClick={onActivate}
    >
      <span
        role="gridcell"
        class="tree-name"
        style={{ paddingLeft: `${(Math.min(node.level, 8) - 1) * 18}px` }}
      >
        <span class={node.job ? "twig" : isOpen ? "twig twig-open" : "twig twig-closed"} aria-hidden="true" />
        <span
          class={node.isFinally ? "tree-label final-mark" : "tree-label"}
          title={node.isFinally ? FINALLY : [node.label, node.limits].filter(Boolean).join(", ")}
        >
          {node.label}
        </span>
        {!node.job && <span class="tree-counts">{countsText(summary)}</span>}
      </span>
      <span role="gridcell" class="tree-state">
        <Badge state={summary.state} label={labelOf(summary, pending)} />
      </span>
      <span role="gridcell" class="number tree-tries">
        {tries > 1 ? tries : ""}
      </span>
      <span role="gridcell" class="number">
        {summary.end > summary.start ? durationText(summary.end - summary.start) : ""}
      </span>
      <span role="gridcell" class="tree-axis">
        <TimeBar axis={axis} node={node} record={record} summary={summary} now={now} />
      </span>
    </div>
  );
}

function labelOf(summary: Summary, pending: string): string {
  if (summary.isWaiting) return "Retries soon";
  if (summary.state === PENDING) return pending;
  return stateLabel(summary.state);
}

function countsText(summary: Summary): string {
  if (summary.state === COMPLETE) return `${summary.jobs}`;
  return `${summary.complete} of ${summary.jobs}`;
}
