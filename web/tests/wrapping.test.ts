import assert from "node:assert/strict";
import { test } from "node:test";

import { OutputLines } from "../src/model/output-lines.ts";
import { LineRows, rowsOf } from "../src/model/wrapping.ts";

function linesOf(text: string) {
  const output = new OutputLines();
  output.add({ cursor: "", text: { stream: "stdout", offset: 0, text } });
  return output;
}

test("a line has as many rows as its characters need", () => {
  const cases: [string, number][] = [
    ["", 1],
    ["x".repeat(10), 1],
    ["x".repeat(11), 2],
    ["x".repeat(300), 30],
    ["\t", 1],
    ["123456789\tx", 2],
    ["漢".repeat(5), 1],
    ["漢".repeat(6), 2],
    ["x" + "漢".repeat(5), 2],
    ["e\u0301".repeat(10), 1],
    ["🙂".repeat(6), 2],
    ["é".repeat(11), 2],
  ];
  for (const [text, rows] of cases) assert.equal(rowsOf(text, 10), rows, JSON.stringify(text));
});

test("characters that the font does not have are as wide as they are", () => {
  const widths = { wide: 1.5, picture: 2.5 };
  assert.equal(rowsOf("漢".repeat(6), 10.4, widths), 1);
  assert.equal(rowsOf("漢".repeat(7), 10.4, widths), 2);
  assert.equal(rowsOf("🙂".repeat(4), 10.4, widths), 1);
  assert.equal(rowsOf("🙂".repeat(5), 10.4, widths), 2);
  assert.equal(rowsOf("x".repeat(11), 10.4, widths), 2);
});

test("rows lead to lines and lines to rows", () => {
  const { lines } = linesOf("a\n" + "b".repeat(25) + "\n\nc\n");
  const rows = new LineRows(10).measure(lines);
  assert.deepEqual([...rows.starts], [0, 1, 4, 5, 6]);
  assert.equal(rows.count, 6);
  assert.deepEqual([0, 1, 2, 3, 4, 5, 9].map((row) => rows.lineAt(row)), [0, 1, 1, 1, 2, 3, 3]);
  assert.deepEqual([...new LineRows(0).measure(lines).starts], [0, 1, 2, 3, 4]);
  const none = new LineRows(10).measure([]);
  assert.deepEqual([none.count, none.lineAt(0)], [0, 0]);
});

test("escapes take no room, and a line that is still written grows", () => {
  const output = linesOf("\u001b[31m" + "x".repeat(10) + "\u001b[0m");
  const rows = new LineRows(10);
  assert.equal(rows.measure(output.lines).count, 1);
  output.add({ cursor: "", text: { stream: "stdout", offset: 0, text: "y" } });
  assert.equal(rows.measure(output.lines).count, 2);
});
