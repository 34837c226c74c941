/** Builds the boxes of a job chain. */

import { connects, isBody, isFinalPart, positions } from "../model/chain.ts";
import { limitsNote } from "../model/limits.ts";
import { Edges } from "./edges.ts";
import { gatherElements } from "./elements.ts";
import { addTo, isBox, newBox, type Box, type Chain, type Item, type Job, type Tree } from "./model.ts";

/** How many jobs or edges are looked at between two pauses. */
const STEP = 1000;

/**
 * Builds the boxes. Pauses after each `STEP` of work, so that the caller can let the browser draw.
 *
 * A job whose sequence is unknown is in the outermost box. An edge that leaves a box is one of the box. The body of a
 * sequence with a `finally` is no box of its own.
 */
export function* buildTree(chain: Chain): Generator<void, Tree> {
  const builder = new TreeBuilder(chain);
  // In the order in which jobs can run, so that items of a box are in the order of the spec. Jobs in a circle follow.
  for (const id of new Set([...positions(chain).keys(), ...Object.keys(chain.jobs)])) {
    builder.addJob(id);
    if (++builder.work % STEP === 0) yield;
  }
  for (const from in chain.adjacencyList) {
    for (const to of chain.adjacencyList[from] ?? []) {
      builder.addEdge(from, to);
      if (++builder.work % STEP === 0) yield;
    }
  }
  for (const [box, edges] of builder.edges) {
    const before = builder.work;
    builder.work += simplify(box, edges, chain.windows);
    if (Math.floor(before / STEP) !== Math.floor(builder.work / STEP)) yield;
  }
  return builder.finished();
}

class TreeBuilder {
  readonly edges = new Map<Box, Edges>();
  work = 0;
  private readonly chain: Chain;
  private readonly root = newBox("sequence", "", "", null);
  private readonly sequences = new Map<string, Box>();
  private readonly jobs = new Map<string, Job>();
  private readonly depths = new Map<Box, number>();

  constructor(chain: Chain) {
    this.chain = chain;
    this.edges.set(this.root, new Edges());
    this.depths.set(this.root, 0);
  }

  addJob(id: string): void {
    const job = this.chain.jobs[id];
    if (!job) return;
    const own = id === job.sequenceId ? undefined : this.chain.pathLabels?.[id];
    const item: Job = {
      kind: connects(job) ? "dot" : "job",
      id,
      label: own ?? job.name,
      isElement: own !== undefined,
      parent: null, index: 0, x: 0, y: 0, width: 0, height: 0,
    };
    this.jobs.set(id, item);
    addTo(this.sequence(job.sequenceId), item);
  }

  addEdge(from: string, to: string): void {
    let first: Item | undefined = this.jobs.get(from);
    let second: Item | undefined = this.jobs.get(to);
    while (first && second && first.parent !== second.parent) {
      if (this.depth(first.parent) >= this.depth(second.parent)) first = first.parent ?? undefined;
      else second = second.parent ?? undefined;
    }
    if (!first?.parent || !second || first === second) return;
    this.edges.get(first.parent)?.add(first.index, second.index);
  }

  finished(): Tree {
    const root = this.outermost();
    const boxes = [root];
    for (let number = 0; number < boxes.length; number++) {
      const box = boxes[number] as Box;
      box.number = number;
      for (const item of box.items) if (isBox(item)) boxes.push(item);
    }
    for (let number = boxes.length - 1; number >= 0; number--) {
      const box = boxes[number] as Box;
      for (const item of box.items) box.tasks += isBox(item) ? item.tasks : item.kind === "job" ? 1 : 0;
    }
    return { root, boxes, jobs: this.jobs, work: this.work };
  }

  /** Returns the only box at the top, or one around all of them. */
  private outermost(): Box {
    const [only] = this.root.items;
    if (this.root.items.length !== 1 || !only || !isBox(only)) return this.root;
    only.parent = null;
    return only;
  }

  private sequence(id: string): Box {
    const known = this.sequences.get(id);
    if (known) return known;
    const parent = this.chain.jobs[id]?.parentSequenceId ?? "";
    if (parent && parent !== id && isBody(this.chain, id)) {
      const around = this.sequence(parent);
      this.sequences.set(id, around);
      return around;
    }
    const box = newBox("sequence", id, this.chain.pathLabels?.[id] ?? "", null);
    box.isFinally = isFinalPart(this.chain, id);
    box.note = limitsNote(this.chain.jobs[id]?.sequenceLimits);
    this.sequences.set(id, box);
    this.edges.set(box, new Edges());
    const around = parent && parent !== id ? this.sequence(parent) : this.root;
    addTo(around, box);
    this.depths.set(box, this.depth(around) + 1);
    return box;
  }

  private depth(box: Box | null): number {
    return box ? (this.depths.get(box) ?? 0) : -1;
  }
}

/**
 * Puts elements of an `each` into one box, and leaves out the noops that nothing needs.
 *
 * Returns how many items and edges it looked at.
 */
function simplify(box: Box, edges: Edges, windows: Chain["windows"]): number {
  let work = box.items.length + edges.count;
  gatherElements(box, edges, windows);
  const kept: number[] = [];
  for (let index = 0; index < box.items.length; index++) {
    if (edges.isRemoved(index)) continue;
    // A noop with one way in or one way out can go without more edges than before.
    const isSpare = edges.before(index).length < 2 || edges.after(index).length < 2;
    if (box.items[index]?.kind === "dot" && isSpare) work += edges.bridge(index);
    else kept.push(index);
  }
  const places: number[] = [];
  kept.forEach((index, place) => (places[index] = place));
  kept.forEach((index, place) => {
    const after = edges.after(index);
    for (const next of after.length > 1 ? new Set(after) : after) {
      box.from.push(place);
      box.to.push(places[next] as number);
    }
  });
  const items = kept.map((index) => box.items[index] as Item);
  box.items = [];
  for (const item of items) addTo(box, item);
  return work;
}
