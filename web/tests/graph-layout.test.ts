/** The layout: what comes later is further right, nothing overlaps, and the work is bounded. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { arrange, setOpen } from "../src/graph/layout.ts";
import { isBox, type Box, type Item, type Tree } from "../src/graph/model.ts";
import { atOnce } from "../src/graph/slices.ts";
import { buildTree } from "../src/graph/tree.ts";
import { ChainWriter, fleet, randomChain, randomNumbers } from "./graph-chains.ts";

const SEEDS = Array.from({ length: 80 }, (_, seed) => seed);

function overlap(a: Item, b: Item): boolean {
  return a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height;
}

/** Checks all that an open box shows. */
function checkBox(box: Box, seed: number): void {
  if (!box.isOpen) return;
  const right = (item: Item) => item.x + item.width;
  box.from.forEach((from, edge) => {
    const [first, second] = [box.items[from]!, box.items[box.to[edge]!]!];
    assert.ok(right(first) < second.x, `seed ${seed}: ${first.label} is not left of ${second.label}`);
  });
  for (const item of box.items) {
    assert.ok(item.width > 0 && item.height > 0 && item.x >= 0 && item.y >= 0);
    assert.ok(right(item) <= box.width && item.y + item.height <= box.height, `seed ${seed}: outside`);
    if (isBox(item)) checkBox(item, seed);
  }
  for (let a = 0; a < box.items.length; a++) {
    for (let b = 0; b < a; b++) assert.ok(!overlap(box.items[a]!, box.items[b]!), `seed ${seed}: overlap`);
  }
}

function openAll({ boxes }: Tree): void {
  for (const box of boxes) setOpen(box, true);
}

test("edges lead to the right, and nothing overlaps, whatever is opened and closed", () => {
  for (const seed of SEEDS) {
    const tree = atOnce(buildTree(randomChain(seed).chain));
    const random = randomNumbers(seed);
    openAll(tree);
    for (let round = 0; round < 5; round++) {
      atOnce(arrange(tree.root));
      checkBox(tree.root, seed);
      for (const box of tree.boxes) if (random() < 0.3) setOpen(box, !box.isOpen);
    }
  }
});

test("after changes the layout is the same as at once", () => {
  const shape = (item: Item): unknown =>
    [item.x, item.y, item.width, item.height, isBox(item) && item.isOpen ? item.items.map(shape) : 0];
  for (const seed of SEEDS) {
    const { chain } = randomChain(seed);
    const [changed, fresh] = [atOnce(buildTree(chain)), atOnce(buildTree(chain))];
    for (const box of changed.boxes) {
      setOpen(box, true);
      atOnce(arrange(changed.root));
    }
    openAll(fresh);
    atOnce(arrange(fresh.root));
    assert.deepEqual(shape(changed.root), shape(fresh.root), `seed ${seed}`);
  }
});

test("jobs with edges to each other in the same order do not cross", () => {
  const writer = new ChainWriter();
  const lines = 12;
  writer.sequence("r", "", (root, end) => {
    const left = Array.from({ length: lines }, (_, line) => writer.job(`a${line}`, root, ""));
    const right = Array.from({ length: lines }, (_, line) => writer.job(`b${line}`, root, "")).reverse();
    left.forEach((job, line) => [writer.edge(root, job), writer.edge(job, right[line]!), writer.edge(right[line]!, end)]);
  });
  const tree = atOnce(buildTree(writer.chain));
  openAll(tree);
  atOnce(arrange(tree.root));
  const { root } = tree;
  root.from.forEach((from, edge) => assert.equal(root.items[from]!.y, root.items[root.to[edge]!]!.y));
});

test("what runs at the same time is in the order of the spec, whatever the order of the ids", () => {
  const writer = new ChainWriter();
  writer.sequence("r", "", (root, end) => {
    const ids = ["9zzz", "aaaa", "5mmm"];
    for (const id of ids) {
      writer.job(`job ${id}`, root, "", "shell-command", id);
      writer.edge(root, id);
      writer.edge(id, end);
    }
  });
  const jobs = Object.fromEntries(Object.entries(writer.chain.jobs).sort(([a], [b]) => (a < b ? -1 : 1)));
  const tree = atOnce(buildTree({ ...writer.chain, jobs }));
  openAll(tree);
  atOnce(arrange(tree.root));
  const downwards = [...tree.root.items].sort((a, b) => a.y - b.y).map(({ label }) => label);
  assert.deepEqual(downwards, ["job 9zzz", "job aaaa", "job 5mmm"]);
});

test("the layout of 40,006 jobs is linear work, and opening one box is little", () => {
  const { chain, edges } = fleet(10_000);
  const tree = atOnce(buildTree(chain));
  const jobs = Object.keys(chain.jobs).length;
  openAll(tree);
  const whole = atOnce(arrange(tree.root));
  assert.ok(whole.done <= 2 * (jobs + edges), String(whole.done));
  const host = tree.boxes[5_000]!;
  setOpen(host, false);
  const again = atOnce(arrange(tree.root));
  assert.ok(again.done <= 10_010, String(again.done)); // The grid around the host, and nothing in other hosts.
  assert.equal(atOnce(arrange(tree.root)).done, 0);
  const [{ width, height }] = tree.root.items as [Box];
  assert.ok(width / height < 8 && height / width < 8, `${width} x ${height}`);
});

test("work pauses often", () => {
  const building = buildTree(fleet(2_000).chain);
  let pauses = 0;
  let step = building.next();
  for (; !step.done; step = building.next()) pauses++;
  assert.ok(pauses > 12, String(pauses));
  openAll(step.value);
  const arranging = arrange(step.value.root);
  for (pauses = 0; !arranging.next().done; ) pauses++;
  assert.ok(pauses > 8, String(pauses));
});
