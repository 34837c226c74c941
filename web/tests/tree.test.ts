import assert from "node:assert/strict";
import { test } from "node:test";

import { pathOf } from "../src/model/chain.ts";
import { JobRecord } from "../src/model/job-record.ts";
import { visibleRows, type RowFilter } from "../src/model/rows.ts";
import { COMPLETE, FAIL, PENDING, RUNNING, STOPPED, SUSPENDED } from "../src/model/states.ts";
import { summarize } from "../src/model/summary.ts";
import { moved } from "../src/model/tree-keys.ts";
import { buildTree } from "../src/model/tree.ts";
import { chainOf, hosts, job, tryOf, withFinally } from "./chains.ts";

const ALL: RowFilter = { only: "all", text: "" };

function shown(record: JobRecord, filter: RowFilter = ALL, chosen = new Map<string, boolean>()): string[] {
  const tree = buildTree(record.chain!);
  const rows = visibleRows(tree, summarize(tree, record, 1000), chosen, filter);
  return rows.map(
    ({ node, isOpen }) =>
      `${"  ".repeat(node.level - 1)}${isOpen ? "- " : node.job ? "" : "+ "}${node.label}`,
  );
}

function recordOf(chain = hosts(3)): JobRecord {
  const record = new JobRecord();
  record.chain = chain;
  return record;
}

test("sequences are in the order in which they run, without jobs that only connect", () => {
  const tree = buildTree(hosts(12));
  assert.deepEqual(tree.roots.map((node) => node.label).slice(0, 3), ["host web0", "host web1", "host web2"]);
  assert.deepEqual(
    tree.roots[11]!.children.map((node) => node.label),
    ["drain", "restart"],
  );
  assert.equal(tree.nodes.length, 36);
});

test("a sequence has a note of its limits", () => {
  const chain = hosts(2);
  chain.jobs["f0"]!.sequenceLimits = [{ key: "host/web0", max: 1 }];
  assert.deepEqual(
    buildTree(chain).roots.map((node) => node.limits),
    ["at most 1 with host/web0", ""],
  );
});

test("a sequence opens if something in it has failed or runs, and not if all is well", () => {
  const record = recordOf();
  record.add({
    tries: [tryOf("d0", 1, COMPLETE, 0, 10), tryOf("r0", 1, COMPLETE, 10, 20), tryOf("d1", 1, FAIL, 0, 10)],
  });
  record.add({
    running: [
      {
        requestId: "r",
        jobs: [{ jobId: "d2", name: "drain", type: "t", startedAt: 5e6, state: RUNNING, try: 1 }],
      },
    ],
  });
  assert.deepEqual(shown(record), [
    "+ host web0",
    "- host web1",
    "  drain",
    "  restart",
    "- host web2",
    "  drain",
    "  restart",
  ]);
});

test("what a user has opened or closed stays so", () => {
  const record = recordOf();
  record.add({ tries: [tryOf("d1", 1, FAIL, 0, 10)] });
  const chosen = new Map([
    ["/f0", true],
    ["/f1", false],
  ]);
  assert.deepEqual(shown(record, ALL, chosen), [
    "- host web0",
    "  drain",
    "  restart",
    "+ host web1",
    "+ host web2",
  ]);
});

test("filters keep the sequences around what they let through", () => {
  const record = recordOf();
  record.add({ tries: [tryOf("r1", 1, FAIL, 0, 10)] });
  assert.deepEqual(shown(record, { only: "failed", text: "" }), ["- host web1", "  restart"]);
  assert.deepEqual(shown(record, { only: "all", text: "WEB2" }), ["- host web2", "  drain", "  restart"]);
  assert.deepEqual(shown(record, { only: "running", text: "" }), []);
});

test("many running sequences stay closed, because rows would jump", () => {
  const record = recordOf(hosts(20));
  const jobs = Array.from({ length: 20 }, (_, host) => ({
    jobId: `d${host}`,
    name: "drain",
    type: "t",
    startedAt: 1,
    state: RUNNING,
    try: 1,
  }));
  record.add({ running: [{ requestId: "r", jobs }] });
  assert.equal(shown(record).length, 20);
});

test("a failure is not hidden by what runs beside it", () => {
  const record = recordOf();
  record.add({ tries: [tryOf("d0", 1, FAIL, 5, 10)] });
  record.add({
    running: [
      {
        requestId: "r",
        jobs: [{ jobId: "r0", name: "restart", type: "t", startedAt: 20e6, state: RUNNING, try: 1 }],
      },
    ],
  });
  const tree = buildTree(record.chain!);
  const sum = summarize(tree, record, 50).get("/f0")!;
  assert.deepEqual([sum.state, sum.failed, sum.running, sum.start, sum.end], [FAIL, 1, 1, 5, 50]);
});

test("states of sequences follow from those of their jobs", () => {
  const record = recordOf(hosts(4));
  const done = (host: number) => [tryOf(`d${host}`, 1, COMPLETE, 0, 1), tryOf(`r${host}`, 1, COMPLETE, 1, 2)];
  record.add({ tries: [...done(0), done(1)[0]!, tryOf("d2", 1, STOPPED, 0, 1)] });
  const tree = buildTree(record.chain!);
  const sums = summarize(tree, record, 50);
  assert.deepEqual(
    [0, 1, 2, 3].map((host) => sums.get(`/f${host}`)!.state),
    [COMPLETE, RUNNING, STOPPED, PENDING],
  );
});

test("between two jobs, a sequence has the state of the request", () => {
  const record = recordOf(hosts(1));
  record.add({ tries: [tryOf("d0", 1, COMPLETE, 0, 1)] });
  const tree = buildTree(record.chain!);
  const state = (request: number) => summarize(tree, record, 50, request).get("/f0")!.state;
  assert.deepEqual([RUNNING, SUSPENDED, FAIL, STOPPED].map(state), [RUNNING, SUSPENDED, STOPPED, STOPPED]);
});

test("jobs of a sequence that has begun again are not complete any longer", () => {
  const record = recordOf(hosts(1));
  record.add({
    tries: [tryOf("f0", 1, COMPLETE, 0, 0), tryOf("d0", 1, COMPLETE, 0, 10), tryOf("r0", 1, FAIL, 10, 20)],
  });
  assert.equal(record.states().get("d0")!.state, COMPLETE);
  record.add({ tries: [tryOf("f0", 2, COMPLETE, 30, 30)] });
  assert.equal(record.states().get("d0")!.state, PENDING);
  record.add({ tries: [tryOf("d0", 2, COMPLETE, 30, 40), tryOf("r0", 2, COMPLETE, 40, 50)] });
  assert.deepEqual(
    [record.states().get("d0")!.state, record.states().get("r0")!.state],
    [COMPLETE, COMPLETE],
  );
});

test("a try is counted once, however often the stream sends it, and a reset forgets all", () => {
  const record = recordOf(hosts(1));
  record.add({ tries: [tryOf("d0", 2, FAIL, 5, 9), tryOf("d0", 1, FAIL, 0, 4)] });
  record.add({ tries: [tryOf("d0", 2, FAIL, 5, 9)] });
  assert.deepEqual(
    record.tries.get("d0")!.map((entry) => entry.try),
    [1, 2],
  );
  record.add({ reset: { reason: "CURSOR_EXPIRED", message: "" }, tries: [tryOf("r0", 1, FAIL, 5, 9)] });
  assert.deepEqual(
    record.failed().map((entry) => entry.jobId),
    ["r0"],
  );
});

test("jobs that each repeats have the element in their path", () => {
  const chain = chainOf(
    [job("root", "noop", "root"), job("a", "drain", "root"), job("b", "drain", "root")],
    [
      ["root", "a"],
      ["root", "b"],
    ],
    { root: "drain-all", a: "host web1", b: "host web2" },
  );
  assert.deepEqual(
    buildTree(chain).roots.map((node) => node.label),
    ["host web1 / drain", "host web2 / drain"],
  );
  assert.deepEqual(pathOf(chain, "b"), ["drain-all", "host web2", "drain"]);
});

test("the body of a sequence with a finally is no level of its own, and its finally has a mark", () => {
  const chain = withFinally();
  const tree = buildTree(chain);
  assert.deepEqual(
    tree.nodes.map((node) => [node.level, node.label, node.isFinally]),
    [
      [1, "upgrade", false],
      [2, "drain", false],
      [2, "restart", false],
      [2, "finally", true],
      [3, "undrain", false],
    ],
  );
  assert.deepEqual(pathOf(chain, "restart"), ["request", "upgrade", "restart"]);
  assert.deepEqual(pathOf(chain, "undrain"), ["request", "upgrade", "finally", "undrain"]);
});

test("a finally runs after a failure, which its sequence still shows", () => {
  const record = new JobRecord();
  record.chain = withFinally();
  record.add({ tries: [tryOf("body", 1, COMPLETE, 0, 0), tryOf("drain", 1, FAIL, 0, 10)] });
  record.add({ tries: [tryOf("final", 1, COMPLETE, 11, 11), tryOf("undrain", 1, COMPLETE, 11, 20)] });
  const sums = summarize(buildTree(record.chain), record, 30, FAIL);
  assert.deepEqual(
    ["/around", "drain", "restart", "/final", "undrain"].map((key) => sums.get(key)!.state),
    [FAIL, FAIL, PENDING, COMPLETE, COMPLETE],
  );
  assert.equal(sums.get("/around")!.jobs, 3);
});

test("a body that is tried again does not make its finally old", () => {
  const record = new JobRecord();
  record.chain = withFinally();
  record.add({ tries: [tryOf("body", 1, COMPLETE, 0, 0), tryOf("drain", 1, FAIL, 0, 10)] });
  record.add({ tries: [tryOf("body", 2, COMPLETE, 20, 20), tryOf("drain", 2, COMPLETE, 20, 30)] });
  record.add({ tries: [tryOf("restart", 1, COMPLETE, 30, 40), tryOf("undrain", 1, COMPLETE, 41, 50)] });
  const sums = summarize(buildTree(record.chain), record, 60);
  assert.equal(sums.get("/around")!.state, COMPLETE);
});

test("keys move as in a tree table", () => {
  const tree = buildTree(hosts(2));
  const rows = visibleRows(tree, summarize(tree, recordOf(hosts(2)), 1), new Map([["/f0", true]]), ALL);
  const to = (index: number, key: string) => moved(rows, index, key, 10);
  assert.deepEqual(to(0, "ArrowRight"), { index: 1 });
  assert.deepEqual(to(3, "ArrowRight"), { index: 3, isOpen: true });
  assert.deepEqual(to(2, "ArrowLeft"), { index: 0 });
  assert.deepEqual(to(0, "ArrowLeft"), { index: 0, isOpen: false });
  assert.deepEqual(
    [to(0, "ArrowUp"), to(3, "ArrowDown"), to(1, "End"), to(3, "Home")].map((move) => move!.index),
    [0, 3, 3, 0],
  );
  assert.equal(to(0, "x"), null);
});

test("a chain of 40,006 jobs has a tree of all its hosts", () => {
  const record = recordOf(hosts(10_001));
  const tree = buildTree(record.chain!);
  record.add({ tries: [tryOf("r9000", 1, FAIL, 0, 10)] });
  const rows = visibleRows(tree, summarize(tree, record, 50), new Map(), ALL);
  assert.equal(Object.keys(record.chain!.jobs).length, 40_006);
  assert.equal(rows.length, 10_001 + 2);
});

test("sequences nest as deep as a chain does", () => {
  const jobs = [job("s0", "noop", "s0")];
  for (let level = 1; level < 3000; level++)
    jobs.push(job(`s${level}`, `step${level}`, `s${level}`, `s${level - 1}`));
  const record = recordOf(chainOf(jobs, []));
  record.add({ tries: [tryOf("s2999", 1, COMPLETE, 0, 1)] });
  const tree = buildTree(record.chain!);
  assert.equal(tree.nodes.length, 2 * 2999);
  assert.equal(summarize(tree, record, 1).get("s2999")!.state, COMPLETE);
});
