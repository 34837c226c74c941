/** How many rows a line takes if it is broken at the right edge, without a look at the document. */

import { plainText } from "./ansi.ts";
import { shownText, type OutputLine } from "./output-lines.ts";

const TAB = 8; // Columns, as in the style.

const PLAIN_ASCII = /^[\x20-\x7e]*$/;
const NO_WIDTH = /[\p{Mn}\p{Me}\p{Cf}]/u;
const WIDE = /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff01-\uff60\uffe0-\uffe6\u{20000}-\u{3fffd}]/u;
const PICTURE = /[\u{1f300}-\u{1faff}]/u;

/** How wide characters are that most fonts for terminals do not have, in columns. */
export interface Widths {
  /** Hangul, CJK, and full-width forms. */
  wide: number;
  /** Emoji and the like. */
  picture: number;
}

export const TERMINAL: Widths = { wide: 2, picture: 2 };

/** Returns the number of rows of a text, at least 1. The text has no escapes. */
export function rowsOf(text: string, columns: number, widths: Widths = TERMINAL): number {
  if (PLAIN_ASCII.test(text)) return Math.max(1, Math.ceil(text.length / Math.floor(columns)));
  let rows = 1;
  let column = 0;
  for (const character of text) {
    const width = character === "\t" ? TAB - (column % TAB) : widthOf(character, widths);
    if (column + width > columns && column > 0) {
      rows++;
      column = 0;
    }
    column += width;
  }
  return rows;
}

function widthOf(character: string, { wide, picture }: Widths): number {
  if (character <= "\u02ff") return 1;
  if (NO_WIDTH.test(character)) return 0;
  return WIDE.test(character) ? wide : PICTURE.test(character) ? picture : 1;
}

interface Measured {
  length: number;
  rows: number;
}

/** The first row of each line. Lines that have not changed are not measured again. */
export class LineRows {
  /** The first row of each line, and at the end the number of all rows. */
  starts = new Uint32Array(1);
  readonly columns: number;
  readonly #widths: Widths;
  readonly #measured = new WeakMap<OutputLine, Measured>();

  /** `columns`: how many characters fit beside each other, also a part of one. 0: lines are not broken. */
  constructor(columns: number, widths: Widths = TERMINAL) {
    this.columns = columns;
    this.#widths = widths;
  }

  measure(lines: readonly OutputLine[]): this {
    const starts = new Uint32Array(lines.length + 1);
    let row = 0;
    for (const [index, line] of lines.entries()) {
      starts[index] = row;
      row += this.columns ? this.#rows(line) : 1;
    }
    starts[lines.length] = row;
    this.starts = starts;
    return this;
  }

  get count(): number {
    return this.starts[this.starts.length - 1] ?? 0;
  }

  /** Returns the row at which a line begins. */
  rowOf(line: number): number {
    return this.starts[line] ?? 0;
  }

  /** Returns the index of the line that has a row. */
  lineAt(row: number): number {
    let [low, high] = [0, Math.max(0, this.starts.length - 2)];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.rowOf(middle) <= row) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  #rows(line: OutputLine): number {
    const known = this.#measured.get(line);
    if (known?.length === line.text.length) return known.rows;
    const rows = rowsOf(plainText(shownText(line)), this.columns, this.#widths);
    this.#measured.set(line, { length: line.text.length, rows });
    return rows;
  }
}
