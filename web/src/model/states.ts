/** The states of requests and jobs. */

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
