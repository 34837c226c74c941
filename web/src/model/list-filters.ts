/** The filters of the list of requests, as the address and the API have them. */

import { STATE_NAMES } from "./states.ts";

/** The parameters that the API takes as filters. */
const NAMES = ["type", "state", "user", "since", "until", "arg"];

export interface ListFilters {
  type: string;
  /** The name of a state, such as FAIL. Empty: all states. */
  state: string;
  user: string;
  /** Requests that have finished after this time, or have not finished. RFC 3339, or empty. */
  since: string;
  /** Requests that were created before this time. RFC 3339, or empty. */
  until: string;
  /** Each as `name=value`. */
  args: string[];
}

export function readFilters(query: URLSearchParams): ListFilters {
  const state = query.get("state") ?? "";
  return {
    type: query.get("type") ?? "",
    state: (STATE_NAMES as readonly string[]).includes(state) ? state : "",
    user: query.get("user") ?? "",
    since: timeOf(query.get("since")),
    until: timeOf(query.get("until")),
    args: query.getAll("arg").filter((arg) => arg.includes("=")),
  };
}

/** Returns the query of the filters that are set. It is the same for the page and for the API. */
export function writeFilters(filters: ListFilters): URLSearchParams {
  const query = new URLSearchParams();
  for (const name of NAMES) {
    if (name === "arg") for (const arg of filters.args) query.append("arg", arg);
    else {
      const value = filters[name as keyof ListFilters] as string;
      if (value) query.set(name, value);
    }
  }
  return query;
}

export function hasFilters(filters: ListFilters): boolean {
  return writeFilters(filters).size > 0;
}

/** Returns the value of a field for date and time, in the zone of the browser, to the minute. */
export function localTime(time: string): string {
  if (!time) return "";
  const date = new Date(time);
  return new Date(date.getTime() - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}

/** Returns the time of such a field as RFC 3339. */
export function fromLocalTime(value: string): string {
  return value ? timeOf(new Date(value).toString()) : "";
}

function timeOf(text: string | null): string {
  const time = Date.parse(text ?? "");
  return Number.isNaN(time) ? "" : new Date(time).toISOString();
}
