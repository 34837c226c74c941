/** A list of requests that changes while it is shown. */

import type { Request } from "../api/types.ts";
import { STATE_NAMES } from "./states.ts";

/**
 * Returns the list with the newest states. Only the first page gets new requests, and loses those that no longer
 * match the state of the filter; other pages stay as they were found.
 */
export function merged(
  shown: Request[],
  changed: Request[],
  options: { isFirstPage: boolean; hasMore: boolean; state: string; pageSize: number },
): Request[] {
  const newest = new Map(changed.map((request) => [request.id, request]));
  const kept = shown.map((request) => newest.get(request.id) ?? request);
  if (!options.isFirstPage) return kept;
  const known = new Set(shown.map((request) => request.id));
  // What is older than the page belongs to the next one.
  const oldest = options.hasMore ? (shown.at(-1)?.id ?? "") : "";
  const added = changed.filter((request) => !known.has(request.id) && request.id > oldest);
  const matching = [...kept, ...added].filter(
    (request) => !options.state || STATE_NAMES[request.state] === options.state,
  );
  return matching
    .sort((one, other) => (one.id < other.id ? 1 : -1))
    .slice(0, Math.max(options.pageSize, shown.length));
}
