/** Bars on the time axis: the tries of a job and the waits between them, or the time of a sequence. */

import { placeOf, segmentsOf, ticksOf, type Axis, type Segment } from "../model/axis";
import type { JobRecord } from "../model/job-record";
import { stateClass } from "../model/states";
import type { Summary } from "../model/summary";
import type { TreeNode } from "../model/tree";

const MOST_TICKS = 5;
const LAST_LABEL = 0.88; // A label further to the right has no room.
const MOST_SEGMENTS = 60; // A job can have thousands of tries, and more bars than these cannot be told apart.

interface Props {
  axis: Axis;
  node: TreeNode;
  record: JobRecord;
  summary: Summary;
  now: number;
}

export function TimeBar({ axis, node, record, summary, now }: Props) {
  if (!Number.isFinite(summary.start)) return null;
  const end = Number.isFinite(summary.end) ? summary.end : now;
  const span = { from: placeOf(axis, summary.start), to: placeOf(axis, end), state: summary.state };
  if (!node.job) return <Bar segments={[span]} kind="bar-sequence" />;
  const tries = record.tries.get(node.key) ?? [];
  const segments = segmentsOf(axis, tries, record.running.get(node.key), summary.isWaiting, now);
  return <Bar segments={segments.length > MOST_SEGMENTS ? [span] : segments} kind="bar-job" />;
}

function Bar({ segments, kind }: { segments: Segment[]; kind: string }) {
  return (
    <svg class={`bar ${kind}`} aria-hidden="true">
      {segments.map(({ from, to, state }, index) => (
        <rect
          key={index}
          class={state ? `bar-part state-${stateClass(state)}` : "bar-wait"}
          x={`${(100 * from).toFixed(3)}%`}
          width={`${(100 * (to - from)).toFixed(3)}%`}
        />
      ))}
    </svg>
  );
}

export function TimeTicks({ axis }: { axis: Axis }) {
  return (
    <span class="ticks" aria-hidden="true">
      {ticksOf(axis, MOST_TICKS).map((tick) => (
        <span key={tick.label} class="tick" style={{ left: `${100 * tick.at}%` }}>
          {tick.at < LAST_LABEL && tick.label}
        </span>
      ))}
    </span>
  );
}
