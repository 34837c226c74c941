/** What the spec says about the retries of a job. */

import type { Job } from "../api/types.ts";
import { countOf } from "./counts.ts";

/** Returns a sentence such as "At most 3 retries, after 2s, each pause 2 times longer, at most 1m." Empty: no retries. */
export function retryText(job: Job): string {
  if (!job.retry) return "";
  const parts = [`At most ${countOf(job.retry, "retry", "retries")}`];
  if (job.retryWait) parts.push(`after ${job.retryWait}`);
  const { factor = 1, max, jitter } = job.retryBackoff ?? {};
  if (job.retryWait && factor > 1) parts.push(`each pause ${factor} times longer`);
  if (job.retryWait && factor > 1 && max) parts.push(`at most ${max}`);
  if (job.retryWait && jitter) parts.push("shortened by up to a half");
  return `${parts.join(", ")}.`;
}
