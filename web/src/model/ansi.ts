/** ANSI colours of a job's output, as classes of text. Nothing of the output becomes markup. */

/** Names of classes without their prefix. */
export interface Style {
  color: string;
  ground: string;
  bold: boolean;
  faint: boolean;
  italic: boolean;
  underline: boolean;
}

export interface Span {
  text: string;
  style: Style;
}

export const PLAIN: Style = {
  color: "",
  ground: "",
  bold: false,
  faint: false,
  italic: false,
  underline: false,
};

const NAMES = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"];

// Sequences that terminals understand: CSI, OSC with its text, and the short ones.
const ESCAPES =
  /\u001b(?:\[([0-9;:?<=>]*)[ -/]*([@-~])|\][^\u0007\u001b]*(?:\u0007|\u001b\\)?|[PX^_][^\u001b]*(?:\u001b\\)?|[ -/]*[0-~])/g;
const CONTROLS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g;

/** Returns a line in parts of one style each, and the style with which the next line begins. */
export function parseLine(line: string, start: Style): { spans: Span[]; end: Style } {
  const spans: Span[] = [];
  let style = start;
  let at = 0;
  const add = (text: string) => {
    if (text) spans.push({ text: text.replace(CONTROLS, "\ufffd"), style });
  };
  for (const match of line.matchAll(ESCAPES)) {
    add(line.slice(at, match.index));
    at = match.index + match[0].length;
    if (match[2] === "m") style = changed(style, match[1] ?? "");
  }
  add(line.slice(at));
  return { spans, end: style };
}

/** Returns what a terminal shows of a line that a program has written again and again, such as a progress bar. */
export function afterReturns(line: string): string {
  const whole = line.replace(/\r+$/, "");
  return whole.slice(whole.lastIndexOf("\r") + 1);
}

export function plainText(line: string): string {
  return line.includes("\u001b")
    ? line.replace(ESCAPES, "").replace(CONTROLS, "\ufffd")
    : line.replace(CONTROLS, "\ufffd");
}

export function classesOf(style: Style): string {
  const names: string[] = [];
  if (style.color) names.push(`ansi-${style.color}`);
  if (style.ground) names.push(`ansi-on-${style.ground}`);
  for (const name of ["bold", "faint", "italic", "underline"] as const)
    if (style[name]) names.push(`ansi-${name}`);
  return names.join(" ");
}

function changed(style: Style, parameters: string): Style {
  const codes = parameters.split(/[;:]/).map(Number);
  let next = style;
  for (let index = 0; index < codes.length; index++) {
    const code = codes[index] ?? 0;
    if (code === 38 || code === 48) {
      const [color, length] = extended(codes.slice(index + 1));
      next = { ...next, [code === 38 ? "color" : "ground"]: color };
      index += length;
    } else next = withCode(next, code);
  }
  return next;
}

function withCode(style: Style, code: number): Style {
  if (code === 0) return PLAIN;
  if (code === 1) return { ...style, bold: true };
  if (code === 2) return { ...style, faint: true };
  if (code === 3) return { ...style, italic: true };
  if (code === 4) return { ...style, underline: true };
  if (code === 22) return { ...style, bold: false, faint: false };
  if (code === 23) return { ...style, italic: false };
  if (code === 24) return { ...style, underline: false };
  if (code === 39) return { ...style, color: "" };
  if (code === 49) return { ...style, ground: "" };
  for (const [first, part, prefix] of [
    [30, "color", ""],
    [40, "ground", ""],
    [90, "color", "bright-"],
    [100, "ground", "bright-"],
  ] as const) {
    const name = NAMES[code - first];
    if (name) return { ...style, [part]: prefix + name };
  }
  return style;
}

/** Returns the nearest of the 16 colours for `5;N` and `2;R;G;B`, and how many codes it used. */
function extended(codes: number[]): [string, number] {
  if (codes[0] === 5 && codes.length > 1) return [indexed(codes[1] ?? 0), 2];
  if (codes[0] === 2 && codes.length > 3) return [nearest(codes[1] ?? 0, codes[2] ?? 0, codes[3] ?? 0), 4];
  return ["", 1];
}

function indexed(index: number): string {
  if (index < 16) return (index < 8 ? "" : "bright-") + (NAMES[index % 8] ?? "");
  if (index > 231) return nearest((index - 232) * 10 + 8, (index - 232) * 10 + 8, (index - 232) * 10 + 8);
  const level = (value: number) => (value ? 55 + 40 * value : 0);
  return nearest(
    level(Math.floor((index - 16) / 36)),
    level(Math.floor((index - 16) / 6) % 6),
    level((index - 16) % 6),
  );
}

function nearest(red: number, green: number, blue: number): string {
  const brightest = Math.max(red, green, blue);
  if (brightest - Math.min(red, green, blue) < 32) {
    return brightest < 64
      ? "black"
      : brightest < 144
        ? "bright-black"
        : brightest < 224
          ? "white"
          : "bright-white";
  }
  const bit = (value: number) => Number(value > brightest / 2);
  const index = bit(red) + 2 * bit(green) + 4 * bit(blue);
  return (brightest > 208 ? "bright-" : "") + (NAMES[index] ?? "");
}
