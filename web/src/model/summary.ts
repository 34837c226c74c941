/** What the rows of the tree show: the states of jobs, summed up for the sequences around them. */

import type { JobNow, JobRecord } from "./job-record.ts";
import { COMPLETE, FAIL, hasEnded, PENDING, RUNNING, STOPPED } from "./states.ts";
import { toMilliseconds } from "./times.ts";
import type { Tree, TreeNode } from "./tree.ts";

export interface Summary {
  state: number;
  isWaiting: boolean;
  jobs: number;
  complete: number;
  failed: number;
  running: number;
  stopped: number;
  /** Milliseconds since 1970. Infinity: not started. */
  start: number;
  /** -Infinity: no try has ended. */
  end: number;
}

/** Returns a summary of each node by its key. `requestState` is the state of the request. */
export function summarize(
  tree: Tree,
  record: JobRecord,
  now: number,
  requestState = RUNNING,
): Map<string, Summary> {
  const states = record.states();
  const summaries = new Map<string, Summary>();
  for (let index = tree.nodes.length - 1; index >= 0; index--) {
    const node = tree.nodes[index] as TreeNode;
    const summary = node.job
      ? ofJob(node.key, states, record, now)
      : ofSequence(node, summaries, requestState);
    summaries.set(node.key, summary);
  }
  return summaries;
}

function ofJob(jobId: string, states: Map<string, JobNow>, record: JobRecord, now: number): Summary {
  const { state, isWaiting } = states.get(jobId) ?? { state: PENDING, isWaiting: false };
  const tries = record.tries.get(jobId) ?? [];
  const running = record.running.get(jobId);
  const first = tries[0]?.startedAt || tries[0]?.finishedAt || running?.startedAt;
  const last = tries.at(-1)?.finishedAt;
  return {
    state,
    isWaiting,
    jobs: 1,
    complete: Number(state === COMPLETE),
    failed: Number(state === FAIL),
    running: Number(state === RUNNING),
    stopped: Number(state === STOPPED),
    start: first ? toMilliseconds(first) : Infinity,
    end: running ? now : last ? toMilliseconds(last) : -Infinity,
  };
}

function ofSequence(node: TreeNode, summaries: Map<string, Summary>, requestState: number): Summary {
  const sum: Summary = {
    state: PENDING,
    isWaiting: false,
    jobs: 0,
    complete: 0,
    failed: 0,
    running: 0,
    stopped: 0,
    start: Infinity,
    end: -Infinity,
  };
  let hasBegun = false;
  for (const child of node.children) {
    const part = summaries.get(child.key) as Summary;
    sum.jobs += part.jobs;
    sum.complete += part.complete;
    sum.failed += part.failed;
    sum.running += part.running;
    sum.stopped += part.stopped;
    sum.start = Math.min(sum.start, part.start);
    sum.end = Math.max(sum.end, part.end);
    hasBegun ||= part.state !== PENDING;
  }
  sum.state = sequenceState(sum, hasBegun, requestState);
  return sum;
}

/**
 * Returns the state of a sequence. A failure is never hidden by what runs beside it. `hasBegun`: one of its jobs is
 * not PENDING. `requestState` is that of the request: between two jobs, a sequence shares it.
 */
export function sequenceState(
  sum: Pick<Summary, "failed" | "running" | "stopped" | "jobs" | "complete">,
  hasBegun: boolean,
  requestState = RUNNING,
): number {
  if (sum.failed) return FAIL;
  if (sum.running) return RUNNING;
  if (sum.stopped) return STOPPED;
  if (sum.jobs && sum.complete === sum.jobs) return COMPLETE;
  if (!hasBegun) return PENDING;
  return hasEnded(requestState) ? STOPPED : requestState;
}
