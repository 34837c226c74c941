/**
 * Finds the elements of an `each`, and puts them into one box.
 *
 * The builder of job chains writes an `each` as: a noop, and then for each group of elements that run at the same
 * time a fork, the elements, and a join. The join of a group leads to the fork of the next one. Both are noops.
 * The elements of a sliding window are one group.
 */

import { countText } from "../model/counts.ts";
import { Edges } from "./edges.ts";
import { addTo, isBox, newBox, type Box, type Chain, type Item } from "./model.ts";

/** Elements between a fork and a join. */
interface Group {
  fork: number;
  join: number;
  /** The elements, and the noops around an element that is a conditional. */
  elements: Item[];
  inner: number[];
  /** The first word of the labels, such as "host". */
  word: string;
}

/** Replaces the groups of each `each` in a box by one new box. */
export function gatherElements(box: Box, edges: Edges, windows: Chain["windows"] = {}): void {
  const groups = new Map<number, Group>();
  for (const item of box.items) {
    const group = item.kind === "dot" ? groupAt(box, edges, item.index) : undefined;
    if (group) groups.set(group.fork, group);
  }
  const later = new Set<Group>();
  for (const group of groups.values()) {
    const next = nextOf(group, groups, edges);
    if (next) later.add(next);
  }
  for (const group of groups.values()) {
    if (later.has(group)) continue;
    const all: Group[] = [];
    for (let next: Group | undefined = group; next; next = nextOf(next, groups, edges)) all.push(next);
    if (all.length > 1 || group.elements.length > 1) replace(box, edges, all, windows);
  }
}

function nextOf(group: Group, groups: Map<number, Group>, edges: Edges): Group | undefined {
  const fork = edges.onlyAfter(group.join);
  const next = fork === undefined ? undefined : groups.get(fork);
  return next?.word === group.word && next !== group ? next : undefined;
}

/** Returns the group whose fork is at an index. */
function groupAt(box: Box, edges: Edges, fork: number): Group | undefined {
  let group: Group | undefined;
  for (const begin of edges.after(fork)) {
    const element = elementAt(box, edges, begin);
    if (!element) return undefined;
    const [item, end] = element;
    const join = edges.onlyAfter(end);
    const word = item.label.split(" ", 1)[0] as string;
    if (join === undefined || box.items[join]?.kind !== "dot") return undefined;
    group ??= { fork, join, elements: [], inner: [], word };
    if (group.join !== join || group.word !== word) return undefined;
    group.elements.push(item);
    if (begin !== end) group.inner.push(begin, end);
  }
  if (!group || edges.before(group.join).length !== group.elements.length) return undefined;
  return group;
}

/** Returns the element that begins at an index, and the index at which it ends. */
function elementAt(box: Box, edges: Edges, begin: number): [Item, number] | undefined {
  const item = box.items[begin] as Item;
  if (edges.before(begin).length !== 1) return undefined;
  if (isElement(item)) return [item, begin];
  if (item.kind !== "dot") return undefined;
  const place = edges.onlyAfter(begin);
  const inner = place === undefined ? undefined : box.items[place];
  if (!inner || !isElement(inner) || edges.before(inner.index).length !== 1) return undefined;
  const end = edges.onlyAfter(inner.index);
  return end !== undefined && box.items[end]?.kind === "dot" && edges.before(end).length === 1 ? [inner, end] : undefined;
}

/** Whether a label can be that of an element: a name and a value. */
function isElement(item: Item): boolean {
  return (isBox(item) || (item.kind === "job" && item.isElement)) && item.label.includes(" ");
}

function replace(box: Box, edges: Edges, groups: Group[], windows: NonNullable<Chain["windows"]>): void {
  const first = groups[0] as Group;
  const last = groups[groups.length - 1] as Group;
  const before = [...edges.before(first.fork)];
  const after = [...edges.after(last.join)];
  const each = newBox("each", "", "", box);
  let atATime = 0;
  for (const group of groups) {
    atATime = Math.max(atATime, group.elements.length);
    for (const index of [group.fork, group.join, ...group.inner]) edges.remove(index);
    for (const item of group.elements) {
      edges.remove(item.index);
      addTo(each, item);
    }
  }
  each.label = `${commonWords(each.items)} × ${countText(each.items.length)}`;
  const fork = box.items[first.fork];
  const window = fork?.kind === "dot" ? windows[fork.id] : undefined;
  if (window) each.note = windowNote(window.max, window.stopAfterFailures ?? 0);
  else if (groups.length > 1) each.note = atATime === 1 ? "one at a time" : `${atATime} at a time`;
  addTo(box, each);
  for (const from of before) edges.add(from, each.index);
  for (const to of after) edges.add(each.index, to);
}

function windowNote(max: number, failures: number): string {
  const note = `at most ${countText(max)} at a time`;
  return failures ? `${note}, stops after ${failures === 1 ? "1 failure" : `${failures} failures`}` : note;
}

/** Returns the words that all labels begin with. */
function commonWords(items: Item[]): string {
  let common = (items[0] as Item).label.split(" ").slice(0, -1);
  for (const { label } of items) {
    const words = label.split(" ");
    let length = 0;
    while (length < common.length && words[length] === common[length]) length++;
    common = common.slice(0, length);
  }
  return common.join(" ");
}
