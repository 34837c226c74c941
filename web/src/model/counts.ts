/** Counts as text. */

/** Returns a count, such as "10,000". A count that has ended at a limit has a "+", because there may be more. */
export function countText(count: number, hasMore = false): string {
  return count.toLocaleString("en") + (hasMore ? "+" : "");
}

/** Returns a count with its noun, such as "1 job" or "10,000 jobs". */
export function countOf(count: number, one: string, many = `${one}s`): string {
  return `${countText(count)} ${count === 1 ? one : many}`;
}
