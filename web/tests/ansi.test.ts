import assert from "node:assert/strict";
import { test } from "node:test";

import { afterReturns, classesOf, parseLine, PLAIN, plainText } from "../src/model/ansi.ts";

const parts = (line: string) =>
  parseLine(line, PLAIN).spans.map((span) => [span.text, classesOf(span.style)]);

test("colours become classes, and end with a reset", () => {
  assert.deepEqual(parts("a \u001b[31;1mred\u001b[0m b"), [
    ["a ", ""],
    ["red", "ansi-red ansi-bold"],
    [" b", ""],
  ]);
  assert.deepEqual(parts("\u001b[92;44mx\u001b[39my"), [
    ["x", "ansi-bright-green ansi-on-blue"],
    ["y", "ansi-on-blue"],
  ]);
});

test("the nearest of 16 colours stands for others", () => {
  assert.deepEqual(parts("\u001b[38;5;196mx"), [["x", "ansi-bright-red"]]);
  assert.deepEqual(parts("\u001b[38;2;0;128;0mx"), [["x", "ansi-green"]]);
  assert.deepEqual(parts("\u001b[48;5;240;1mx"), [["x", "ansi-on-bright-black ansi-bold"]]);
});

test("a style lasts until the next line", () => {
  const { end } = parseLine("\u001b[33mwarning", PLAIN);
  assert.equal(classesOf(parseLine("goes on", end).spans[0]!.style), "ansi-yellow");
});

test("other sequences are left out, and control characters are shown as such", () => {
  assert.equal(plainText("\u001b[2K\u001b]0;title\u0007a\u001b[1;5Hb\u001b(Bc"), "abc");
  assert.equal(plainText("\u001b]8;;https://example.com\u001b\\link\u001b]8;;\u001b\\"), "link");
  assert.equal(plainText("a\u0007b\u0000c\td"), "a\ufffdb\ufffdc\td");
});

test("unfinished and broken sequences lose no text", () => {
  assert.equal(plainText("a\u001b"), "a\ufffd");
  assert.equal(plainText("a\u001b[31"), "a31");
  assert.deepEqual(parts("\u001b[38;5mx"), [["x", ""]]);
  assert.deepEqual(parts("\u001b[999mx"), [["x", ""]]);
});

test("markup stays text", () => {
  assert.deepEqual(parts("<script>alert(1)</script>"), [["<script>alert(1)</script>", ""]]);
});

test("of a line that is written again and again, the last text counts", () => {
  assert.equal(afterReturns("10 %\r50 %\r100 %"), "100 %");
  assert.equal(afterReturns("done\r"), "done");
});
