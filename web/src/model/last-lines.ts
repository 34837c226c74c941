/** The last lines of a text that a job has written. */

import { afterReturns, parseLine, PLAIN, type Span } from "./ansi.ts";

const LONGEST = 500; // Characters of a line.
const LONGEST_TEXT = 64 * 1024; // Characters at the end of the text that are looked at.

export function lastLines(text: string, most: number): { lines: string[]; left: number } {
  const all = text.slice(-LONGEST_TEXT).replace(/\n+$/, "").split("\n");
  const lines = all.slice(-most).map(afterReturns);
  return { lines, left: all.length - lines.length };
}

export function lineSpans(line: string): Span[] {
  const cut = line.length > LONGEST ? `${line.slice(0, LONGEST)}…` : line;
  return parseLine(cut, PLAIN).spans;
}
