/** Requests by the time of their creation and by their outcome, for the chart. */

import type { Request } from "../api/types.ts";
import { countText } from "./counts.ts";
import { COMPLETE, FAIL, STOPPED } from "./states.ts";

const MOST = 48; // Intervals in the chart.
const STEPS = [1, 5, 10, 30, 60, 300, 600, 1800, 3600, 10_800, 21_600, 43_200, 86_400]; // Seconds.

/** The outcomes, from the bottom of a bar to its top. */
export const OUTCOMES = ["failed", "stopped", "complete", "active"] as const;
export type Outcome = (typeof OUTCOMES)[number];

export interface Buckets {
  /** Seconds. */
  step: number;
  /** When each interval begins, in seconds since 1970. */
  starts: number[];
  counts: Record<Outcome, number[]>;
}

export function outcomeOf(state: number): Outcome {
  if (state === FAIL) return "failed";
  if (state === STOPPED) return "stopped";
  return state === COMPLETE ? "complete" : "active";
}

/** Returns the numbers of requests in each interval. Null: there are no requests. `now` is in milliseconds. */
export function bucketsOf(requests: Request[], now: number): Buckets | null {
  if (requests.length === 0) return null;
  const times = requests.map((request) => Date.parse(request.createdAt) / 1000);
  const oldest = times.reduce((one, other) => Math.min(one, other));
  const newest = times.reduce((one, other) => Math.max(one, other), now / 1000);
  const span = newest - oldest;
  const step = STEPS.find((size) => span / size < MOST - 1) ?? 86_400 * Math.ceil(span / 86_400 / (MOST - 2));
  const first = Math.floor(oldest / step) * step;
  const starts: number[] = [];
  for (let start = first; start <= newest; start += step) starts.push(start);
  const zeros = () => starts.map(() => 0);
  const counts: Record<Outcome, number[]> = {
    failed: zeros(),
    stopped: zeros(),
    complete: zeros(),
    active: zeros(),
  };
  for (const [index, request] of requests.entries()) {
    const bucket = Math.floor(((times[index] as number) - first) / step);
    const list = counts[outcomeOf(request.state)];
    list[bucket] = (list[bucket] ?? 0) + 1;
  }
  return { step, starts, counts };
}

/** Returns for each outcome the sums of it and of the outcomes below it, as a chart of stacked bars needs them. */
export function stacked(buckets: Buckets): number[][] {
  let below = buckets.starts.map(() => 0);
  return OUTCOMES.map((outcome) => {
    below = below.map((sum, index) => sum + (buckets.counts[outcome][index] ?? 0));
    return below;
  });
}

/** Says how many requests an interval has, such as "2 failed, 10 complete". */
export function bucketText(buckets: Buckets, index: number): string {
  const parts = OUTCOMES.map((outcome) => [buckets.counts[outcome][index] ?? 0, outcome] as const);
  const texts = parts
    .filter(([count]) => count > 0)
    .map(([count, outcome]) => `${countText(count)} ${outcome}`);
  return texts.join(", ") || "no requests";
}
