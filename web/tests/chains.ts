/** Job chains for tests. */

import type { Job, JobChain, JobLog } from "../src/api/types.ts";

export function job(id: string, name: string, sequenceId: string, parentSequenceId = ""): Job {
  const type = name === "noop" ? "noop" : "shell-command";
  const made: Job = { id, name, type, state: 1, retry: 0, sequenceId, sequenceRetry: 0 };
  return parentSequenceId ? { ...made, parentSequenceId } : made;
}

export function chainOf(
  jobs: Job[],
  edges: [string, string][],
  pathLabels: Record<string, string> = {},
): JobChain {
  const chain: JobChain = { requestId: "r", jobs: {}, adjacencyList: {}, pathLabels };
  for (const one of jobs) chain.jobs[one.id] = one;
  for (const [from, to] of edges) (chain.adjacencyList[from] ??= []).push(to);
  return chain;
}

/** A request with `count` hosts, each a sequence of a job "drain", a job "restart" and two noops around them. */
export function hosts(count: number): JobChain {
  const jobs = [job("root", "noop", "root"), job("end", "noop", "root")];
  const edges: [string, string][] = [];
  const labels: Record<string, string> = { root: "rolling-restart" };
  for (let host = 0; host < count; host++) {
    const [first, last, drain, restart] = [`f${host}`, `l${host}`, `d${host}`, `r${host}`];
    jobs.push(job(first, "noop", first, "root"), job(last, "noop", first, "root"));
    jobs.push(job(drain, "drain", first, "root"), job(restart, "restart", first, "root"));
    edges.push(["root", first], [first, drain], [drain, restart], [restart, last], [last, "end"]);
    labels[first] = `host web${host}`;
  }
  return chainOf(jobs, edges, labels);
}

/**
 * A request with a sequence "upgrade" that has a `finally`, as the server builds it: a sequence around both with the
 * label of the node, the body with the label "", and the part "finally". The body has the jobs "drain" and "restart".
 */
export function withFinally(): JobChain {
  const last = (one: Job): Job => ({ ...one, isFinally: true });
  const jobs = [
    job("root", "noop", "root"),
    job("end", "noop", "root"),
    job("around", "noop", "around", "root"),
    job("aroundEnd", "noop", "around", "root"),
    job("body", "noop", "body", "around"),
    job("drain", "drain", "body", "around"),
    job("restart", "restart", "body", "around"),
    job("bodyEnd", "noop", "body", "around"),
    last(job("final", "noop", "final", "around")),
    last(job("undrain", "undrain", "final", "around")),
    last(job("finalEnd", "noop", "final", "around")),
  ];
  const edges: [string, string][] = [
    ["root", "around"],
    ["around", "body"],
    ["body", "drain"],
    ["drain", "restart"],
    ["restart", "bodyEnd"],
    ["bodyEnd", "final"],
    ["bodyEnd", "aroundEnd"],
    ["final", "undrain"],
    ["undrain", "finalEnd"],
    ["finalEnd", "aroundEnd"],
    ["aroundEnd", "end"],
  ];
  return chainOf(jobs, edges, { root: "request", around: "upgrade", body: "", final: "finally" });
}

/** A finished try. Times are milliseconds. */
export function tryOf(jobId: string, number: number, state: number, from: number, to: number): JobLog {
  const times = { startedAt: from * 1e6, finishedAt: to * 1e6 };
  const exit = state === 4 ? 1 : 0;
  return {
    requestId: "r",
    jobId,
    try: number,
    name: jobId,
    type: "t",
    ...times,
    state,
    exit,
    error: "",
    stdout: "",
    stderr: "",
  };
}
