/** What is known about the jobs of one request: its chain, the finished tries, and what runs now. */

import type { JobChain, JobLog, JobStatus, WatchMessage } from "../api/types.ts";
import { COMPLETE, FAIL, PENDING, RUNNING } from "./states.ts";

const RETRY_SLEEP = "(retry sleep)"; // How the API marks a job that waits for its next try.

export interface JobNow {
  state: number;
  /** It has failed, and waits for its next try. */
  isWaiting: boolean;
}

export class JobRecord {
  readonly tries = new Map<string, JobLog[]>();
  readonly running = new Map<string, JobStatus>();
  #chain: JobChain | null = null;

  /** Forgets the tries, because the stream begins again. */
  clear(): void {
    this.tries.clear();
    this.running.clear();
  }

  set chain(chain: JobChain | null) {
    this.#chain = chain;
  }

  get chain(): JobChain | null {
    return this.#chain;
  }

  add(message: WatchMessage): void {
    if (message.reset) this.clear();
    for (const entry of message.tries ?? []) this.#addTry(entry);
    for (const { jobs } of message.running ?? []) {
      this.running.clear();
      for (const job of jobs) this.running.set(job.jobId, job);
    }
  }

  #addTry(entry: JobLog): void {
    const known = this.tries.get(entry.jobId);
    const last = known?.at(-1);
    if (!known || !last) this.tries.set(entry.jobId, [entry]);
    else if (entry.try > last.try) known.push(entry);
    else if (!known.some((other) => other.try === entry.try)) {
      known.push(entry);
      known.sort((one, other) => one.try - other.try);
    }
    const now = this.running.get(entry.jobId);
    if (now && now.try <= entry.try) this.running.delete(entry.jobId);
  }

  /** Returns the newest finished try of a job. */
  newest(jobId: string): JobLog | undefined {
    return this.tries.get(jobId)?.at(-1);
  }

  /** Returns the state of each job. Costs the same for each job, however deep the chain is nested. */
  states(): Map<string, JobNow> {
    const starts = new Map<string, number>();
    const states = new Map<string, JobNow>();
    for (const jobId of Object.keys(this.#chain?.jobs ?? {})) states.set(jobId, this.#stateOf(jobId, starts));
    return states;
  }

  #stateOf(jobId: string, starts: Map<string, number>): JobNow {
    const now = this.running.get(jobId);
    if (now) return { state: RUNNING, isWaiting: (now.status ?? "").startsWith(RETRY_SLEEP) };
    const job = this.#chain?.jobs[jobId];
    const newest = this.newest(jobId);
    if (!newest) return { state: job?.state === COMPLETE ? COMPLETE : PENDING, isWaiting: false };
    // After a sequence has begun again, its jobs run again too, even if they had completed.
    const began = job && jobId !== job.sequenceId ? this.#beganAt(job.sequenceId, starts) : 0;
    const isOutdated = newest.state !== FAIL && began > newest.finishedAt;
    return { state: isOutdated ? PENDING : newest.state, isWaiting: false };
  }

  /** Returns when a sequence began its newest try, or one around it did, if that was later. */
  #beganAt(sequenceId: string, starts: Map<string, number>): number {
    const chain: string[] = [];
    let id = sequenceId;
    while (id && !starts.has(id)) {
      chain.push(id);
      id = this.#chain?.jobs[id]?.parentSequenceId ?? "";
    }
    let latest = starts.get(id) ?? 0;
    for (const inner of chain.reverse()) {
      const began = this.running.get(inner)?.startedAt ?? this.newest(inner)?.startedAt ?? 0;
      latest = Math.max(latest, began);
      starts.set(inner, latest);
    }
    return starts.get(sequenceId) ?? 0;
  }

  /** Returns the jobs whose newest try has failed, in the order of their failures. */
  failed(): JobLog[] {
    const failed: JobLog[] = [];
    for (const tries of this.tries.values()) {
      const newest = tries.at(-1);
      if (newest?.state === FAIL) failed.push(newest);
    }
    return failed.sort((one, other) => one.finishedAt - other.finishedAt);
  }
}
