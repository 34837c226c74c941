/** The states of requests and jobs. */

import type { Request } from "../api/types.ts";

export const PENDING = 1;
export const RUNNING = 2;
export const COMPLETE = 3;
export const FAIL = 4;
export const STOPPED = 6;
export const SUSPENDED = 7;

/** The names of the API by number, as in `?state=FAIL`. Requests have no state 0 and 5. */
export const STATE_NAMES = [
  "",
  "PENDING",
  "RUNNING",
  "COMPLETE",
  "FAIL",
  "",
  "STOPPED",
  "SUSPENDED",
] as const;

/** What people read. */
const LABELS = ["Unknown", "Pending", "Running", "Complete", "Failed", "Unknown", "Stopped", "Suspended"];

export function stateLabel(state: number): string {
  return LABELS[state] ?? "Unknown";
}

/** The end of the names of classes, such as `state-fail`. */
export function stateClass(state: number): string {
  return (STATE_NAMES[state] || "unknown").toLowerCase();
}

export function hasEnded(state: number): boolean {
  return state === COMPLETE || state === FAIL || state === STOPPED;
}

/** Whether a user has paused the request. The API says so only in words. */
export function isPaused(waiting: string | undefined): boolean {
  return (waiting ?? "").startsWith("paused");
}

/** What a stop of a request does, for its confirmation. */
export function stopText({ state, ending }: Pick<Request, "state" | "ending">): string {
  if (ending) return "The request is ending, and runs its finally jobs. A second stop skips them.";
  if (state === RUNNING)
    return (
      "No further job starts, and running jobs are told to stop. " +
      "Finally jobs of what has begun run first. All else stays as it is."
    );
  if (state === SUSPENDED)
    return "The request does not run now. It will not start again, except for finally jobs of what has begun.";
  return "The request does not run now. It will not start again.";
}
