/** The output of one try as lines. Each of its two streams has lines of its own, numbered from 1. */

import type { OutputMessage, StreamName } from "../api/types.ts";
import { afterReturns, parseLine, PLAIN, plainText, type Span, type Style } from "./ansi.ts";
import { countText } from "./counts.ts";

/** Characters of output that the page keeps. A browser with more of them becomes slow. */
export const MOST_CHARACTERS = 32 * 1024 * 1024;

/** A longer line is cut where it is shown. */
export const LONGEST_LINE = 10_000;

export interface OutputLine {
  stream: StreamName;
  /** From 1, in its stream. 0: a notice of the page about text that is missing. */
  number: number;
  text: string;
  style: Style;
}

interface Open {
  count: number;
  style: Style;
  /** The line without its end yet. */
  last: OutputLine | null;
}

export class OutputLines {
  readonly lines: OutputLine[] = [];
  #characters = 0;
  #streams: Record<StreamName, Open> = { stdout: newOpen(), stderr: newOpen() };

  get isFull(): boolean {
    return this.#characters > MOST_CHARACTERS;
  }

  add(message: OutputMessage): void {
    if (message.text) this.#addText(message.text.stream, message.text.text);
    if (message.gap) {
      const { stream, reason, from, to } = message.gap;
      if (reason === "LOST") this.#forget(stream);
      else this.#streams[stream].last = null;
      this.#notice(stream, gapText(reason, from, to));
    }
  }

  #addText(stream: StreamName, text: string): void {
    if (this.isFull) return;
    this.#characters += text.length;
    const open = this.#streams[stream];
    const pieces = text.split("\n");
    for (const [index, piece] of pieces.entries()) {
      const isLast = index === pieces.length - 1;
      if (open.last) open.last.text += piece;
      else if (piece || !isLast) this.#begin(stream, piece);
      if (!isLast && open.last) this.#finish(open);
    }
    if (this.isFull)
      this.#notice(stream, "The page shows no more of this output. Read all of it with `spinc log`.");
  }

  #begin(stream: StreamName, text: string): void {
    const open = this.#streams[stream];
    open.count++;
    open.last = { stream, number: open.count, text, style: open.style };
    this.lines.push(open.last);
  }

  #finish(open: Open): void {
    const line = open.last as OutputLine;
    line.text = afterReturns(line.text);
    if (line.text.includes("\u001b")) open.style = parseLine(line.text, line.style).end;
    open.last = null;
  }

  /** The numbers of lines begin again, and links must stay unique. */
  #forget(stream: StreamName): void {
    const kept = this.lines.filter((line) => line.stream !== stream);
    this.lines.length = 0;
    for (const line of kept) this.lines.push(line);
    this.#streams[stream] = newOpen();
  }

  #notice(stream: StreamName, text: string): void {
    this.lines.push({ stream, number: 0, text, style: PLAIN });
  }
}

/** Returns the parts of a line that are shown. */
export function spansOf(line: OutputLine): Span[] {
  return parseLine(shownText(line), line.style).spans;
}

/** Returns what is shown of a line, with its escapes. */
export function shownText(line: OutputLine): string {
  const text = afterReturns(line.text);
  return text.length > LONGEST_LINE ? `${text.slice(0, LONGEST_LINE)}…` : text;
}

/** Returns the indexes of the lines that contain a text, in upper or lower case. */
export function search(lines: readonly OutputLine[], text: string): number[] {
  const wanted = text.toLowerCase();
  if (!wanted) return [];
  const found: number[] = [];
  for (const [index, line] of lines.entries()) {
    if (line.number && plainText(line.text).toLowerCase().includes(wanted)) found.push(index);
  }
  return found;
}

function newOpen(): Open {
  return { count: 0, style: PLAIN, last: null };
}

function gapText(reason: string, from: number, to: number): string {
  if (reason === "LOST")
    return "The Job Runner was lost. Another one runs this try again, and its output follows.";
  return `${countText(to - from)} bytes of output were not kept.`;
}
