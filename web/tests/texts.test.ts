import assert from "node:assert/strict";
import { test } from "node:test";

import type { RequestArg } from "../src/api/types.ts";
import { argsOf, faultOf, fieldOf, likelyKind, valueText, type Field } from "../src/model/arg-values.ts";
import { newAxis, segmentsOf, ticksOf } from "../src/model/axis.ts";
import { countOf, countText } from "../src/model/counts.ts";
import { readFragment, writeFragment } from "../src/model/fragment.ts";
import { lastLines } from "../src/model/last-lines.ts";
import { marked } from "../src/model/marks.ts";
import { OutputLines, search, spansOf } from "../src/model/output-lines.ts";
import { retryText } from "../src/model/retries.ts";
import { stopText } from "../src/model/states.ts";
import { agoText, durationText, shortWaitingText, timeText, waitingText } from "../src/model/times.ts";
import { job, tryOf } from "./chains.ts";

test("a count has its noun, and a plus if there may be more", () => {
  assert.equal(countText(10_000), "10,000");
  assert.equal(countText(1000, true), "1,000+");
  assert.deepEqual([0, 1, 2].map((count) => countOf(count, "job")), ["0 jobs", "1 job", "2 jobs"]);
  assert.equal(countOf(1, "retry", "retries"), "1 retry");
  assert.equal(countOf(3, "retry", "retries"), "3 retries");
});

test("durations have at most two units", () => {
  const cases: [number, string][] = [
    [0, "0 ms"],
    [999, "999 ms"],
    [1000, "1 s"],
    [1500, "1.5 s"],
    [9_960, "10 s"],
    [59_949, "60 s"],
    [59_960, "1 min"],
    [65_000, "1 min 5 s"],
    [3_600_000, "1 h"],
    [3_725_000, "1 h 2 min"],
    [90_000_000, "1 d 1 h"],
    [-5, "0 ms"],
  ];
  for (const [milliseconds, text] of cases) assert.equal(durationText(milliseconds), text);
});

test("times have their zone", () => {
  assert.equal(timeText("2026-11-29T19:00:50.271Z", "UTC"), "29 Nov 2026, 19:00:50 UTC");
  assert.match(timeText("2026-07-01T12:00:00Z", "Europe/Berlin"), /14:00:00 (CEST|GMT\+2)/);
  assert.equal(agoText(0, 125_000), "2 min ago");
  assert.equal(agoText(0, 3_000), "just now");
});

test("why a request waits is a sentence", () => {
  assert.equal(
    waitingText("paused by ann at 2026-11-29T19:48:24Z", "UTC"),
    "Paused by ann at 29 Nov 2026, 19:48:24 UTC.",
  );
  assert.equal(
    shortWaitingText("waits for the limit c1 of 1 since 2026-11-29T19:48:24Z: request a holds it"),
    "Waits for the limit c1 of 1: request a holds it.",
  );
  assert.equal(shortWaitingText("waits for an approval by dba since 2026-11-29T19:48:24Z"), "Waits for an approval by dba.");
});

test("an axis has round ticks", () => {
  assert.deepEqual(
    ticksOf(newAxis(0, 35_000), 5).map((tick) => tick.label),
    ["0", "10 s", "20 s", "30 s"],
  );
  for (const length of [1, 7, 1234, 59_000, 86_400_000, 40 * 86_400_000, 4000 * 86_400_000]) {
    const ticks = ticksOf(newAxis(0, length), 5);
    assert.ok(ticks.length >= 1 && ticks.length <= 6, `${length}: ${ticks.length}`);
  }
});

test("a bar has the tries and the waits between them", () => {
  const axis = newAxis(0, 100);
  const tries = [tryOf("a", 1, 4, 10, 20), tryOf("a", 2, 4, 30, 40)];
  const running = { jobId: "a", name: "a", type: "t", startedAt: 60e6, state: 2, try: 3 };
  const bar = (isWaiting: boolean) =>
    segmentsOf(axis, tries, running, isWaiting, 80).map(({ from, to, state }) => [from, to, state]);
  const before = [
    [0.1, 0.2, 4],
    [0.2, 0.3, 0],
    [0.3, 0.4, 4],
  ];
  assert.deepEqual(bar(false), [...before, [0.4, 0.6, 0], [0.6, 0.8, 2]]);
  assert.deepEqual(bar(true), [...before, [0.4, 0.8, 0]]);
});

test("a copied address opens the same place", () => {
  for (const hash of ["", "#job=a1B2", "#job=a1B2&try=2&line=34", "#view=graph&job=a1B2&line=e7"]) {
    assert.equal(writeFragment(readFragment(hash)), hash);
  }
  assert.deepEqual(readFragment("#job=x&try=-1&line=<script>"), {
    job: "x",
    try: 0,
    line: null,
    view: "jobs",
  });
});

test("lines of the two streams have numbers of their own, also if text comes in pieces", () => {
  const output = new OutputLines();
  const write = (stream: "stdout" | "stderr", text: string) =>
    output.add({ cursor: "", text: { stream, offset: 0, text } });
  write("stdout", "one\ntw");
  write("stderr", "bad\n");
  write("stdout", "o\n\nfour");
  const shown = output.lines.map((line) => `${line.stream} ${line.number} ${line.text}`);
  assert.deepEqual(shown, ["stdout 1 one", "stdout 2 two", "stderr 1 bad", "stdout 3 ", "stdout 4 four"]);
});

test("a colour lasts until it ends, in its stream alone", () => {
  const output = new OutputLines();
  output.add({
    cursor: "",
    text: { stream: "stdout", offset: 0, text: "\u001b[31mred\nstill\u001b[0m\nplain\n" },
  });
  output.add({ cursor: "", text: { stream: "stderr", offset: 0, text: "other\n" } });
  assert.deepEqual(
    output.lines.map((line) => spansOf(line)[0]!.style.color),
    ["red", "red", "", ""],
  );
});

test("missing output is announced, and a lost run begins again with line 1", () => {
  const output = new OutputLines();
  output.add({ cursor: "", text: { stream: "stdout", offset: 0, text: "a\nb\n" } });
  output.add({ cursor: "", gap: { stream: "stdout", from: 4, to: 2004, reason: "TRUNCATED" } });
  assert.equal(output.lines.at(-1)!.text, "2,000 bytes of output were not kept.");
  output.add({ cursor: "", gap: { stream: "stdout", from: 4, to: 0, reason: "LOST" } });
  output.add({ cursor: "", text: { stream: "stdout", offset: 0, text: "a\n" } });
  assert.deepEqual(
    output.lines.map((line) => line.number),
    [0, 1],
  );
});

test("search ignores case and colours", () => {
  const output = new OutputLines();
  output.add({
    cursor: "",
    text: { stream: "stdout", offset: 0, text: "x\n\u001b[31mERR\u001b[0mor\nerror\n" },
  });
  assert.deepEqual(search(output.lines, "Error"), [1, 2]);
  assert.deepEqual(search(output.lines, ""), []);
  assert.deepEqual(
    marked("an ERROR, error", "error")
      .filter((part) => part.isMatch)
      .map((part) => part.text),
    ["ERROR", "error"],
  );
});

test("the retries of a job are a sentence", () => {
  const retried = { ...job("a", "a", "a"), retry: 3, retryWait: "2s" };
  assert.equal(retryText(job("a", "a", "a")), "");
  assert.equal(retryText({ ...retried, retry: 1 }), "At most 1 retry, after 2s.");
  const growing = { ...retried, retryBackoff: { factor: 2, max: "1m", jitter: true } };
  assert.equal(
    retryText(growing),
    "At most 3 retries, after 2s, each pause 2 times longer, at most 1m, shortened by up to a half.",
  );
});

test("the last lines of a text say how many others there are", () => {
  assert.deepEqual(lastLines("a\nb\nc\n\n", 2), { lines: ["b", "c"], left: 1 });
});

const arg = (values: Partial<RequestArg>): RequestArg => ({
  Name: "a",
  Desc: "",
  Type: "required",
  Given: false,
  Default: null,
  Value: null,
  ...values,
});

test("the text of a form becomes the args to send", () => {
  const args = [
    arg({ Name: "hosts" }),
    arg({ Name: "wait", Type: "optional", Default: "10" }),
    arg({ Name: "deep", Type: "optional", Default: { x: 1 } }),
  ];
  const fields = new Map<string, Field>(args.map((one) => [one.Name, fieldOf(one)]));
  fields.set("hosts", { text: '["a"]', kind: "json" });
  assert.deepEqual(argsOf(args, fields), { hosts: ["a"] });
  fields.set("wait", { text: "20", kind: "text" });
  assert.deepEqual(argsOf(args, fields), { hosts: ["a"], wait: "20" });
});

test("a list is recognized, and what is wrong is said", () => {
  assert.deepEqual(["[1]", "[1", "x", "{}", "12"].map(likelyKind), ["json", "text", "text", "json", "text"]);
  assert.equal(faultOf(arg({}), { text: "", kind: "text" }), "Enter a value for a.");
  assert.match(faultOf(arg({}), { text: "[1", kind: "json" }), /not valid JSON/);
  assert.match(faultOf(arg({}), { text: "[9007199254740993]", kind: "json" }), /2\^53/);
  assert.equal(faultOf(arg({ Type: "optional" }), { text: "", kind: "json" }), "");
  const deep = { a: ["x, y", "[ {", "\n "], b: {}, c: [] };
  assert.equal(valueText(deep), '{"a": ["x, y", "[ {", "\\n "], "b": {}, "c": []}');
  assert.deepEqual(JSON.parse(valueText(deep)), deep);
  assert.equal(valueText("x".repeat(3000)).length, 2000 + "… (3,000 characters)".length);
});

test("a second stop says that it skips finally jobs", () => {
  const [PENDING, RUNNING, STOPPED, SUSPENDED] = [1, 2, 6, 7];
  assert.match(stopText({ state: RUNNING }), /running jobs are told to stop.*Finally jobs.* run first/);
  assert.match(stopText({ state: SUSPENDED }), /except for finally jobs/);
  assert.doesNotMatch(stopText({ state: PENDING }), /finally/);
  for (const state of [RUNNING, SUSPENDED])
    assert.match(stopText({ state, ending: STOPPED }), /second stop skips/);
});
