/** Values of args: as text for people, and from the text of a form. */

import type { Json, RequestArg } from "../api/types.ts";
import { countText } from "./counts.ts";

/** The longest value that is shown, in characters. */
const LONGEST = 2000;

export function valueText(value: Json): string {
  const text = typeof value === "string" ? value : spacedJson(value);
  return text.length > LONGEST
    ? `${text.slice(0, LONGEST)}… (${countText(text.length)} characters)`
    : text;
}

/** Returns JSON on one line that can break after each comma. Strings have no line breaks in JSON, so only the layout has. */
function spacedJson(value: Json): string {
  return JSON.stringify(value, null, 1)
    .replace(/([[{])\n */g, "$1")
    .replace(/\n *([\]}])/g, "$1")
    .replace(/\n */g, " ");
}

export type FieldKind = "text" | "json";

/** One field of the form. */
export interface Field {
  text: string;
  kind: FieldKind;
}

/** Returns the field of an arg: with its value in an earlier request, or with its default. */
export function fieldOf(arg: RequestArg, earlier?: Json): Field {
  const value = earlier ?? arg.Default;
  if (value === null || value === undefined) return { text: "", kind: "text" };
  if (typeof value === "string") return { text: value, kind: "text" };
  return { text: spacedJson(value), kind: "json" };
}

/** Returns the kind that a text most likely has: what begins like a list or an object, and is valid, is JSON. */
export function likelyKind(text: string): FieldKind {
  if (!/^\s*[[{]/.test(text)) return "text";
  return parsed(text) === undefined ? "text" : "json";
}

/** Says what is wrong with a field, in a sentence. Empty: nothing. */
export function faultOf(arg: RequestArg, field: Field): string {
  if (arg.Type === "required" && field.text === "") return `Enter a value for ${arg.Name}.`;
  if (field.kind === "text" || (field.text === "" && arg.Type === "optional")) return "";
  const value = parsed(field.text);
  if (value === undefined)
    return `${arg.Name} is not valid JSON. Write a list as ["a", "b"], or choose Text.`;
  if (hasLargeNumber(value)) return `${arg.Name} has a whole number of 2^53 or more. Write it as a string.`;
  return "";
}

/** Returns the args to send. Optional args that equal their default are left out, so that the spec decides. */
export function argsOf(args: RequestArg[], fields: ReadonlyMap<string, Field>): Record<string, Json> {
  const values: Record<string, Json> = {};
  for (const arg of args) {
    const field = fields.get(arg.Name);
    if (!field || arg.Type === "static") continue;
    if (arg.Type === "optional" && isDefault(arg, field)) continue;
    values[arg.Name] = field.kind === "json" ? (parsed(field.text) as Json) : field.text;
  }
  return values;
}

function isDefault(arg: RequestArg, field: Field): boolean {
  const initial = fieldOf(arg);
  return field.text === initial.text && (field.kind === initial.kind || field.text === "");
}

function parsed(text: string): Json | undefined {
  try {
    return JSON.parse(text) as Json;
  } catch {
    return undefined;
  }
}

function hasLargeNumber(value: Json): boolean {
  if (typeof value === "number") return Number.isInteger(value) && !Number.isSafeInteger(value);
  return value !== null && typeof value === "object" && Object.values(value).some(hasLargeNumber);
}
