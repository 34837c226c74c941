/**
 * What the graph shows: boxes in boxes, made from a job chain.
 *
 * A sequence is a box, and so is everything that one `each` repeats. Each box has one way in and one way out, so
 * its content can be arranged without a look at the rest of the graph.
 */

import type { JobChain } from "../api/types.ts";

/** What the graph reads of a job chain. All pages of the chain are together. */
export interface Chain {
  jobs: Record<string, Pick<JobChain["jobs"][string],
    "id" | "name" | "type" | "sequenceId" | "parentSequenceId" | "isFinally" | "sequenceLimits">>;
  adjacencyList: Record<string, string[]>;
  pathLabels?: Record<string, string>;
  /** The sliding windows, by the id of the job after which the elements begin. */
  windows?: Record<string, { max: number; stopAfterFailures?: number }>;
}

/** A rectangle. Its place is relative to the content of the box around it, in units of the graph. */
interface Placed {
  parent: Box | null;
  /** The place among the items of its box. */
  index: number;
  label: string;
  x: number;
  y: number;
  width: number;
  height: number;
}

/** A job, or a point at which parallel parts meet. */
export interface Job extends Placed {
  kind: "job" | "dot";
  id: string;
  /** Whether the label is of the job alone: `each` repeats the job. */
  isElement: boolean;
}

/** A sequence, or all elements of an `each`. */
export interface Box extends Placed {
  kind: "sequence" | "each";
  /** The id of the first job of a sequence; empty for an `each`. */
  id: string;
  /** A second line: for an `each`, how many elements run at a time; for a sequence, its limits. */
  note: string;
  items: Item[];
  /** The edges between items: from the item at one index to the item at another. */
  from: number[];
  to: number[];
  /** The place in `Tree.boxes`. */
  number: number;
  /** How many jobs are in it, without those that only connect others. */
  tasks: number;
  /** Whether it is the `finally` part of the sequence around it. */
  isFinally: boolean;
  isOpen: boolean;
  /** Whether its content has a place. */
  isArranged: boolean;
}

export type Item = Job | Box;

/** All boxes of a job chain, and all jobs by id. */
export interface Tree {
  root: Box;
  /** Outer boxes come before those in them. */
  boxes: Box[];
  jobs: Map<string, Job>;
  /** How many jobs and edges were looked at: the work is linear in them. */
  work: number;
}

/** Whether an item is a box. */
export function isBox(item: Item): item is Box {
  return item.kind === "sequence" || item.kind === "each";
}

/** Returns the title of an open box, without the sign that it is open. */
export function titleOf(box: Box): string {
  return box.note ? `${box.label}, ${box.note}` : box.label;
}

/** Returns an empty box. */
export function newBox(kind: Box["kind"], id: string, label: string, parent: Box | null): Box {
  return {
    kind, id, label, note: "", items: [], from: [], to: [], number: 0, tasks: 0,
    isFinally: false, isOpen: false, isArranged: false,
    parent, index: 0, x: 0, y: 0, width: 0, height: 0,
  };
}

/** Adds an item to a box, as its last one. */
export function addTo(box: Box, item: Item): void {
  item.parent = box;
  item.index = box.items.length;
  box.items.push(item);
}

/** Returns the labels of the boxes around an item and its own, outermost first. */
export function pathOf(item: Item): string[] {
  const path: string[] = [];
  if (item.kind === "job" && item.isElement) path.push(item.label);
  else if (item.label) path.push(item.label);
  for (let box = item.parent; box !== null; box = box.parent) {
    if (box.kind === "sequence" && box.label) path.push(box.label);
  }
  return path.reverse();
}
