/** The time axis: where a time is, and its ticks. */

import type { JobLog, JobStatus } from "../api/types.ts";
import { RUNNING } from "./states.ts";
import { durationText, toMilliseconds } from "./times.ts";

/** Milliseconds since 1970. The end is later than the start. */
export interface Axis {
  start: number;
  end: number;
}

/** A part of a bar. Positions are fractions of the axis, from 0 to 1. */
export interface Segment {
  from: number;
  to: number;
  /** The state of a try. 0: a wait between two tries. */
  state: number;
}

export interface Tick {
  at: number;
  label: string;
}

const STEPS = [
  1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 15_000, 30_000, 60_000, 120_000, 300_000,
  600_000, 900_000, 1_800_000, 3_600_000, 7_200_000, 14_400_000, 21_600_000, 43_200_000, 86_400_000,
];

export function newAxis(start: number, end: number): Axis {
  return { start, end: Math.max(end, start + 1) };
}

export function placeOf(axis: Axis, time: number): number {
  return Math.min(1, Math.max(0, (time - axis.start) / (axis.end - axis.start)));
}

/** Returns at most `most` + 1 ticks at round durations since the start. */
export function ticksOf(axis: Axis, most: number): Tick[] {
  const length = axis.end - axis.start;
  let step = STEPS.find((size) => length / size <= most);
  if (!step) step = 86_400_000 * Math.ceil(length / 86_400_000 / most);
  const ticks: Tick[] = [];
  for (let time = 0; time <= length; time += step) {
    ticks.push({ at: time / length, label: time === 0 ? "0" : durationText(time) });
  }
  return ticks;
}

/** Returns the bar of a job: its tries, and the waits between them. */
export function segmentsOf(
  axis: Axis,
  tries: JobLog[],
  running: JobStatus | undefined,
  isWaiting: boolean,
  now: number,
): Segment[] {
  const segments: Segment[] = [];
  let end = 0;
  const add = (from: number, to: number, state: number) => {
    if (end && from > end) segments.push({ from: placeOf(axis, end), to: placeOf(axis, from), state: 0 });
    segments.push({ from: placeOf(axis, from), to: placeOf(axis, to), state });
    end = to;
  };
  for (const entry of tries) {
    const finished = toMilliseconds(entry.finishedAt);
    add(toMilliseconds(entry.startedAt || entry.finishedAt), finished, entry.state);
  }
  if (!running) return segments;
  if (isWaiting && end) segments.push({ from: placeOf(axis, end), to: placeOf(axis, now), state: 0 });
  else add(toMilliseconds(running.startedAt), now, RUNNING);
  return segments;
}
