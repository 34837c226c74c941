/** The states of jobs, and those of the boxes around them. */

import { COMPLETE, FAIL, PENDING, RUNNING, STOPPED } from "../model/states.ts";
import { sequenceState } from "../model/summary.ts";
import { isBox, type Box, type Item, type Tree } from "./model.ts";

const KINDS = 8; // States are numbers below 8.

export class ItemStates {
  private readonly counts: Uint32Array;
  private readonly byJob: ReadonlyMap<string, number>;

  private readonly requestState: number;

  /** Sums up the states of all boxes. Linear in jobs and boxes. Jobs that are not in the map are PENDING. */
  constructor(tree: Tree, byJob: ReadonlyMap<string, number>, requestState: number) {
    this.byJob = byJob;
    this.requestState = requestState;
    this.counts = new Uint32Array(tree.boxes.length * KINDS);
    for (const job of tree.jobs.values()) {
      if (job.kind !== "job" || !job.parent) continue;
      this.add(job.parent, this.ofJob(job.id), 1);
    }
    for (let number = tree.boxes.length - 1; number > 0; number--) {
      const box = tree.boxes[number] as Box;
      for (let state = 0; state < KINDS; state++) this.add(box.parent as Box, state, this.count(box, state));
    }
  }

  /** Returns how many jobs in a box have a state. */
  count(box: Box, state: number): number {
    return this.counts[box.number * KINDS + state] ?? 0;
  }

  of(item: Item): number {
    if (!isBox(item) || item.tasks === 0) return this.ofJob(item.id);
    const [complete, failed] = [this.count(item, COMPLETE), this.count(item, FAIL)];
    const [running, stopped] = [this.count(item, RUNNING), this.count(item, STOPPED)];
    const hasBegun = this.count(item, PENDING) < item.tasks;
    const counts = { jobs: item.tasks, complete, failed, running, stopped };
    return sequenceState(counts, hasBegun, this.requestState);
  }

  private ofJob(id: string): number {
    const state = this.byJob.get(id) ?? PENDING;
    return state > 0 && state < KINDS ? state : PENDING;
  }

  private add(box: Box, state: number, count: number): void {
    const place = box.number * KINDS + state;
    this.counts[place] = (this.counts[place] ?? 0) + count;
  }
}
