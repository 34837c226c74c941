/** Job chains: their order, and the jobs that only connect others. */

import type { Job, JobChain } from "../api/types.ts";

/** Whether a job comes from no node of a spec, and only connects other jobs. */
export function connects(job: { name: string; type: string }): boolean {
  return job.name === "noop" && job.type === "noop";
}

/** Returns the position of each job in an order in which jobs can run. Linear in jobs and edges. */
export function positions(
  chain: Pick<JobChain, "adjacencyList"> & { jobs: Record<string, unknown> },
): Map<string, number> {
  const waits = new Map<string, number>();
  for (const id of Object.keys(chain.jobs)) waits.set(id, 0);
  for (const after of Object.values(chain.adjacencyList)) {
    for (const id of after) waits.set(id, (waits.get(id) ?? 0) + 1);
  }
  const order = [...waits].filter(([, count]) => count === 0).map(([id]) => id);
  for (let index = 0; index < order.length; index++) {
    for (const id of chain.adjacencyList[order[index] as string] ?? []) {
      const left = (waits.get(id) ?? 0) - 1;
      waits.set(id, left);
      if (left === 0) order.push(id);
    }
  }
  return new Map(order.map((id, position) => [id, position]));
}

/** Returns the parts of a job's path, such as "rolling-restart", "host web7", "drain". */
export function pathOf(chain: JobChain, jobId: string): string[] {
  const job = chain.jobs[jobId];
  if (!job) return [];
  const parts = [job.name];
  const own = ownLabel(chain, job);
  if (own) parts.push(own);
  let id: string | undefined = job.sequenceId;
  while (id) {
    const label = chain.pathLabels?.[id];
    if (label) parts.push(label);
    id = chain.jobs[id]?.parentSequenceId;
  }
  return parts.reverse();
}

/**
 * Whether a sequence adds nothing to paths: the body of a sequence with a `finally`. The sequence around both has the
 * name, and holds the body's jobs and the part `finally` for those who look at it.
 */
export function isBody(chain: Pick<JobChain, "pathLabels">, sequenceId: string): boolean {
  return chain.pathLabels?.[sequenceId] === "";
}

type Jobs = Record<string, Pick<Job, "sequenceId" | "parentSequenceId" | "isFinally">>;

/** Whether a sequence is the `finally` part of another one, and not in such a part. */
export function isFinalPart(chain: { jobs: Jobs }, sequenceId: string): boolean {
  const first = chain.jobs[sequenceId];
  if (!first?.isFinally || !first.parentSequenceId) return false;
  return !chain.jobs[first.parentSequenceId]?.isFinally;
}

/** Returns the label of a job that `each` repeats, such as "host web7". */
export function ownLabel(chain: JobChain, job: Job): string {
  return job.sequenceId === job.id ? "" : (chain.pathLabels?.[job.id] ?? "");
}
