/**
 * Places the items of a box: longest-path layers from left to right, with few crossings in between.
 *
 * All work is linear in items and edges, but for sorting. An `each` is a grid, in the order in which its elements
 * run, because its elements have no edges that say more.
 */

import { isBox, titleOf, type Box, type Item } from "./model.ts";

export const JOB = { width: 168, height: 34 };
export const CLOSED = { width: 196, height: 48 };
export const DOT = { width: 12, height: 12 };

/** The height of the title of an open box, and the space around its content. */
export const TITLE = 30;
export const PADDING = 14;

const LAYER_GAP = 44;
const ITEM_GAP = 14;

/** A layer with more items than this has several columns. So has an `each` with more than the second number. */
const LONGEST_COLUMN = 24;
const LONGEST_ELEMENTS = 4;

/** The width of several columns together, by their height. */
const SHAPE = 1.6;

/** The width of a character of a title, about, and the longest title that makes its box wider. */
const CHARACTER = 7.6;
const LONGEST_TITLE = 48;

const SWEEPS = 4;

/** How many items and edges are looked at between two pauses. */
const STEP = 1000;

/** Counts the work of a layout. */
export interface Work {
  done: number;
}

/** Says that a box, and those around it, must be arranged again. */
export function disarrange(box: Box): void {
  for (let around: Box | null = box; around; around = around.parent) around.isArranged = false;
}

/** Opens or closes a box. */
export function setOpen(box: Box, isOpen: boolean): void {
  if (box.isOpen === isOpen) return;
  box.isOpen = isOpen;
  disarrange(box);
}

/** Places everything that open boxes show, and has not its place yet. Pauses after each `STEP` of work. */
export function* arrange(root: Box, work: Work = { done: 0 }): Generator<void, Work> {
  // Boxes come before those in them, so in reverse order the size of an inner box is known.
  const pending: Box[] = root.isArranged ? [] : [root];
  let next = work.done + STEP;
  for (let index = 0; index < pending.length; index++) {
    const box = pending[index] as Box;
    if (!box.isOpen) continue;
    for (const item of box.items) if (isBox(item) && !item.isArranged) pending.push(item);
  }
  for (const box of pending.reverse()) {
    arrangeBox(box, work);
    if (work.done < next) continue;
    next = work.done + STEP;
    yield;
  }
  return work;
}

function arrangeBox(box: Box, work: Work): void {
  box.isArranged = true;
  if (!box.isOpen) {
    box.width = CLOSED.width;
    box.height = CLOSED.height;
    work.done++;
    return;
  }
  for (const item of box.items) {
    if (isBox(item)) continue;
    const size = item.kind === "dot" ? DOT : JOB;
    item.width = size.width;
    item.height = size.height;
  }
  work.done += box.items.length + box.from.length + 1;
  const layers = box.kind === "each" ? [box.items] : orderedLayers(box);
  const longest = box.kind === "each" ? LONGEST_ELEMENTS : LONGEST_COLUMN;
  const columns = layers.map((layer) => inColumns(layer, longest));
  const height = columns.reduce((most, layer) => Math.max(most, layer.height), 0);
  let x = PADDING;
  for (const layer of columns) {
    for (const item of layer.items) {
      item.x += x;
      item.y += TITLE + PADDING + (height - layer.height) / 2;
    }
    x += layer.width + LAYER_GAP;
  }
  const title = titleOf(box).length;
  const least = Math.max(CLOSED.width, Math.min(title, LONGEST_TITLE) * CHARACTER + 4 * PADDING);
  box.width = Math.max(least, x - (columns.length ? LAYER_GAP : 0) + PADDING);
  box.height = TITLE + 2 * PADDING + height;
}

/** Places the items of one layer among themselves, from the top left corner at 0, 0. */
function inColumns(items: Item[], longest: number): { items: Item[]; width: number; height: number } {
  const count = items.length > longest ? columnsFor(items) : 1;
  const rows = Math.ceil(items.length / count);
  const widths = new Array<number>(count).fill(0);
  const heights = new Array<number>(rows).fill(0);
  items.forEach((item, place) => {
    const [column, row] = [Math.floor(place / rows), place % rows];
    widths[column] = Math.max(widths[column] ?? 0, item.width);
    heights[row] = Math.max(heights[row] ?? 0, item.height);
  });
  const lefts = starts(widths);
  const tops = starts(heights);
  items.forEach((item, place) => {
    const [column, row] = [Math.floor(place / rows), place % rows];
    item.x = (lefts[column] ?? 0) + (count > 1 ? 0 : ((widths[column] ?? 0) - item.width) / 2);
    item.y = tops[row] ?? 0;
  });
  return { items, width: (lefts[count] ?? 0) - ITEM_GAP, height: (tops[rows] ?? 0) - ITEM_GAP };
}

/** Returns how many columns give some items a good shape. */
function columnsFor(items: Item[]): number {
  let [width, height] = [0, 0];
  for (const item of items) {
    width += item.width + ITEM_GAP;
    height += item.height + ITEM_GAP;
  }
  return Math.max(1, Math.min(items.length, Math.round(Math.sqrt((items.length * height * SHAPE) / width))));
}

/** Returns where each part begins, if gaps are between the parts. The last number is where another one would. */
function starts(sizes: number[]): number[] {
  const found = [0];
  for (const size of sizes) found.push((found[found.length - 1] ?? 0) + size + ITEM_GAP);
  return found;
}

/** Returns the items of a box by layer, each layer in the order from top to bottom. */
function orderedLayers(box: Box): Item[][] {
  const { ins, outs } = neighbours(box);
  const layers: number[][] = [];
  const layerOf = longestPaths(box.items.length, ins, outs);
  layerOf.forEach((layer, item) => (layers[layer] ??= []).push(item));
  const position = new Float64Array(box.items.length);
  const settle = (layer: number[]) =>
    layer.forEach((item, rank) => (position[item] = (rank + 0.5) / layer.length));
  layers.forEach(settle);
  for (let sweep = 0; sweep < SWEEPS; sweep++) {
    const isDown = sweep % 2 === 0;
    for (const layer of isDown ? layers : [...layers].reverse()) {
      sortByCentre(layer, isDown ? ins : outs, position);
      settle(layer);
    }
  }
  return layers.map((layer) => layer.map((item) => box.items[item] as Item));
}

/** Sorts the items of a layer by the mean position of their neighbours. Those without neighbours stay. */
function sortByCentre(layer: number[], neighbours: number[][], position: Float64Array): void {
  if (layer.length < 2) return;
  const centre = new Map<number, number>();
  for (const item of layer) {
    const near = neighbours[item] ?? [];
    let sum = 0;
    for (const other of near) sum += position[other] ?? 0;
    centre.set(item, near.length ? sum / near.length : (position[item] ?? 0));
  }
  layer.sort((a, b) => (centre.get(a) ?? 0) - (centre.get(b) ?? 0) || (position[a] ?? 0) - (position[b] ?? 0));
}

function neighbours(box: Box): { ins: number[][]; outs: number[][] } {
  const ins: number[][] = box.items.map(() => []);
  const outs: number[][] = box.items.map(() => []);
  box.from.forEach((from, edge) => {
    const to = box.to[edge] as number;
    outs[from]?.push(to);
    ins[to]?.push(from);
  });
  return { ins, outs };
}

/** Returns the layer of each item: the length of the longest path to it. Items in a circle come last. */
function longestPaths(count: number, ins: number[][], outs: number[][]): number[] {
  const layer = new Array<number>(count).fill(0);
  const missing = ins.map((before) => before.length);
  const ready: number[] = [];
  missing.forEach((number, item) => number === 0 && ready.push(item));
  let last = 0;
  for (let index = 0; index < ready.length; index++) {
    const item = ready[index] as number;
    last = Math.max(last, layer[item] as number);
    for (const after of outs[item] ?? []) {
      layer[after] = Math.max(layer[after] as number, (layer[item] as number) + 1);
      if (--(missing[after] as number) === 0) ready.push(after);
    }
  }
  missing.forEach((number, item) => number > 0 && (layer[item] = last + 1));
  return layer;
}
