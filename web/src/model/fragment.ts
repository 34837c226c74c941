/** The part of the address after "#": what is open on the page of a request. */

import type { StreamName } from "../api/types.ts";

export interface LinePlace {
  stream: StreamName;
  /** From 1. */
  number: number;
}

export interface Fragment {
  /** The open job. Empty: none. */
  job: string;
  /** Its try. 0: the newest. */
  try: number;
  line: LinePlace | null;
  view: "jobs" | "graph";
}

const LINE = /^(e?)([1-9][0-9]{0,8})$/;

/** Reads `#job=ID&try=2&line=34`. Lines of stderr have an "e" before their number. What is malformed is ignored. */
export function readFragment(hash: string): Fragment {
  const values = new URLSearchParams(hash.replace(/^#/, ""));
  const line = LINE.exec(values.get("line") ?? "");
  const tryNumber = Number(values.get("try"));
  return {
    job: values.get("job") ?? "",
    try: Number.isSafeInteger(tryNumber) && tryNumber > 0 ? tryNumber : 0,
    line: line ? { stream: line[1] ? "stderr" : "stdout", number: Number(line[2]) } : null,
    view: values.get("view") === "graph" ? "graph" : "jobs",
  };
}

export function writeFragment(fragment: Fragment): string {
  const values = new URLSearchParams();
  if (fragment.view === "graph") values.set("view", "graph");
  if (fragment.job) values.set("job", fragment.job);
  if (fragment.job && fragment.try) values.set("try", String(fragment.try));
  if (fragment.job && fragment.line) values.set("line", lineName(fragment.line));
  return values.size ? `#${values}` : "";
}

export function lineName(line: LinePlace): string {
  return `${line.stream === "stderr" ? "e" : ""}${line.number}`;
}
