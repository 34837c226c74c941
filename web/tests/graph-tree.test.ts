/** The boxes of a job chain, compared with a slow look at the chain itself. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { connects } from "../src/model/chain.ts";
import { isBox, pathOf, type Box, type Chain, type Item, type Tree } from "../src/graph/model.ts";
import { atOnce } from "../src/graph/slices.ts";
import { buildTree } from "../src/graph/tree.ts";
import { ChainWriter, fleet, randomChain } from "./graph-chains.ts";

const SEEDS = Array.from({ length: 80 }, (_, seed) => seed);

/** Returns the path of a job, from the labels of the sequences around it. */
function pathInChain(chain: Chain, id: string): string[] {
  const job = chain.jobs[id]!;
  const own = id === job.sequenceId ? undefined : chain.pathLabels?.[id];
  const path = [own ?? job.name];
  for (let sequence = job.sequenceId; sequence; sequence = chain.jobs[sequence]?.parentSequenceId ?? "") {
    const label = chain.pathLabels?.[sequence];
    if (label !== "") path.unshift(label ?? "");
  }
  return path;
}

/** Returns for each job all jobs after it. */
function reachable(chain: Chain): Map<string, Set<string>> {
  const found = new Map<string, Set<string>>();
  const visit = (id: string): Set<string> => {
    const known = found.get(id);
    if (known) return known;
    const after = new Set<string>();
    found.set(id, after);
    for (const next of chain.adjacencyList[id] ?? []) {
      after.add(next);
      for (const later of visit(next)) after.add(later);
    }
    return after;
  };
  Object.keys(chain.jobs).forEach(visit);
  return found;
}

/** Returns for each item of a box the items after it, by the edges of the box. */
function reachableIn(box: Box): Set<number>[] {
  const after = box.items.map(() => new Set<number>());
  for (let isNew = true; isNew; ) {
    isNew = false;
    box.from.forEach((from, edge) => {
      const to = box.to[edge]!;
      for (const next of [to, ...after[to]!]) {
        if (after[from]!.has(next)) continue;
        after[from]!.add(next);
        isNew = true;
      }
    });
  }
  return after;
}

function tasksOf(item: Item): string[] {
  if (isBox(item)) return item.items.flatMap(tasksOf);
  return item.kind === "job" ? [item.id] : [];
}

function checkOrder(tree: Tree, chain: Chain): void {
  const after = reachable(chain);
  for (const box of tree.boxes) {
    if (box.kind === "each") continue;
    const inBox = reachableIn(box);
    const tasks = box.items.map(tasksOf);
    box.items.forEach((first, from) =>
      box.items.forEach((second, to) => {
        const [before, later] = [tasks[from]!, tasks[to]!];
        if (first === second || !before.length || !later.length) return;
        const inChain = before.some((a) => later.some((b) => after.get(a)!.has(b)));
        assert.equal(inBox[from]!.has(to), inChain, `${pathOf(first)} -> ${pathOf(second)}`);
      }),
    );
  }
}

test("each job is in the boxes that its path names, in the order of the chain", () => {
  for (const seed of SEEDS) {
    const { chain } = randomChain(seed);
    const tree = atOnce(buildTree(chain));
    const expected = Object.values(chain.jobs).filter((job) => !connects(job));
    assert.deepEqual(tasksOf(tree.root).sort(), expected.map(({ id }) => id).sort(), `seed ${seed}`);
    assert.equal(tree.root.tasks, expected.length);
    for (const { id } of expected) assert.deepEqual(pathOf(tree.jobs.get(id)!), pathInChain(chain, id));
    checkOrder(tree, chain);
  }
});

test("items know their box and their place in it", () => {
  for (const seed of SEEDS) {
    const { root, boxes } = atOnce(buildTree(randomChain(seed).chain));
    assert.equal(root.parent, null);
    boxes.forEach((box, number) => {
      assert.equal(box.number, number);
      box.items.forEach((item, index) => assert.deepEqual([item.parent, item.index], [box, index]));
      if (box.parent) assert.ok(box.parent.number < number);
    });
  }
});

test("an each is one box with its elements in order", () => {
  for (const parallel of [1, 2, 3, 100]) {
    const { root, boxes } = atOnce(buildTree(fleet(7, parallel).chain));
    assert.equal(boxes.length, 9);
    const [each] = root.items as [Box];
    assert.deepEqual([root.items.length, each.kind, each.label], [1, "each", "host × 7"]);
    assert.deepEqual(each.items.map(({ label }) => label), [0, 1, 2, 3, 4, 5, 6].map((row) => `host web${row}`));
    const note = parallel === 1 ? "one at a time" : parallel < 7 ? `${parallel} at a time` : "";
    assert.equal(each.note, note);
  }
});

test("the elements of a sliding window are one box that says how many run at a time", () => {
  const writer = new ChainWriter();
  writer.sequence("r", "", (root, end) => {
    const [before, after] = [writer.noop(root, ""), writer.noop(root, "")];
    writer.edge(root, before);
    writer.edge(after, end);
    for (let row = 0; row < 5; row++) {
      const job = writer.job("drain", root, "");
      writer.chain.pathLabels[job] = `host h${row}`;
      writer.edge(before, job);
      writer.edge(job, after);
    }
    writer.chain.windows[before] = { max: 2, stopAfterFailures: 3 };
  });
  const { root } = atOnce(buildTree(writer.chain));
  const [each] = root.items as [Box];
  assert.deepEqual([root.items.length, each.label, each.note], [1, "host × 5", "at most 2 at a time, stops after 3 failures"]);
});

test("two each nodes one after another are two boxes", () => {
  const writer = new ChainWriter();
  writer.sequence("r", "", (root, end) => {
    const element = (name: string) => (row: number): [string, string] => {
      const job = writer.job(name, root, "");
      writer.chain.pathLabels[job] = `${name} host h${row}`;
      return [job, job];
    };
    const first = writer.each(root, "", 4, 2, element("drain"));
    const second = writer.each(root, "", 4, 2, element("start"));
    writer.edge(root, first[0]);
    writer.edge(first[1], second[0]);
    writer.edge(second[1], end);
  });
  const { root } = atOnce(buildTree(writer.chain));
  assert.deepEqual(root.items.map(({ label }) => label), ["drain host × 4", "start host × 4"]);
  assert.deepEqual([root.from, root.to], [[0], [1]]);
});

test("a sequence with a finally is one box, in which its finally is a box behind the jobs", () => {
  const writer = new ChainWriter();
  const jobs = (names: string[]) => (around: string) => (id: string, end: string) => {
    for (const name of names) {
      const job = writer.job(name, id, around);
      writer.edge(id, job);
      writer.edge(job, end);
    }
  };
  writer.withFinally("upgrade", "", jobs(["drain", "restart"]), jobs(["undrain"]));
  const { root, boxes, jobs: all } = atOnce(buildTree(writer.chain));
  assert.deepEqual([root.label, root.isFinally, root.tasks, boxes.length], ["upgrade", false, 3, 2]);
  const last = boxes[1]!;
  assert.deepEqual([last.label, last.isFinally, last.parent, last.tasks], ["finally", true, root, 1]);
  const tasks = root.items.filter(({ kind }) => kind !== "dot").map(({ label }) => label);
  assert.deepEqual(tasks, ["drain", "restart", "finally"]);
  const after = reachableIn(root);
  for (const item of root.items) if (item.kind === "job") assert.ok(after[item.index]!.has(last.index));
  const undrain = [...all.values()].find(({ label }) => label === "undrain")!;
  assert.deepEqual(pathOf(undrain), ["upgrade", "finally", "undrain"]);
});

test("only the outermost box of a finally has the mark", () => {
  const writer = new ChainWriter();
  const one = (name: string) => (around: string) => (id: string, end: string) => {
    const job = writer.job(name, id, around);
    writer.edge(id, job);
    writer.edge(job, end);
  };
  const nested = () => (id: string, end: string) => {
    const [first, last] = writer.sequence("inner", id, one("deep")(id));
    writer.edge(id, first);
    writer.edge(last, end);
  };
  writer.withFinally("r", "", one("work"), nested);
  const { boxes } = atOnce(buildTree(writer.chain));
  assert.deepEqual(
    boxes.map(({ label, isFinally }) => [label, isFinally]),
    [["r", false], ["finally", true], ["inner", false]],
  );
});

test("a noop where many parts meet stays, so that edges do not multiply", () => {
  const writer = new ChainWriter();
  writer.sequence("r", "", (root, end) => {
    const parts = (number: number) => Array.from({ length: number }, () => writer.job("part", root, ""));
    const [early, late] = [parts(200), parts(200)];
    const middle = writer.noop(root, "");
    for (const part of early) [writer.edge(root, part), writer.edge(part, middle)];
    for (const part of late) [writer.edge(middle, part), writer.edge(part, end)];
  });
  const { root } = atOnce(buildTree(writer.chain));
  assert.equal(root.items.length, 401);
  assert.equal(root.from.length, 400);
});

test("the work is linear in jobs and edges", () => {
  for (const parallel of [1, 2, 10_000]) {
    const { chain, edges } = fleet(10_000, parallel);
    const jobs = Object.keys(chain.jobs).length;
    if (parallel === 10_000) assert.equal(jobs, 40_006);
    const { work } = atOnce(buildTree(chain));
    assert.ok(work <= 4 * (jobs + edges), `${work} for ${jobs} jobs and ${edges} edges`);
  }
});

test("a chain without labels, an unknown sequence and a circle are shown too", () => {
  const writer = new ChainWriter();
  const job = (name: string, sequence = "gone") => writer.job(name, sequence, "");
  const [a, b, c] = [job("a"), job("b"), job("c", "other")];
  for (const [from, to] of [[a, b], [b, a], [b, c], [c, "nowhere"]] as const) writer.edge(from, to);
  const chain = { jobs: writer.chain.jobs, adjacencyList: writer.chain.adjacencyList };
  const { root } = atOnce(buildTree(chain));
  assert.deepEqual(tasksOf(root).sort(), [a, b, c]);
  assert.equal(atOnce(buildTree({ jobs: {}, adjacencyList: {} })).root.tasks, 0);
});
