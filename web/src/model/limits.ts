/** Limits: which requests hold a key, and which wait for it. */

import type { HeldLimit, LimitClaim } from "../api/types.ts";
import { countOf, countText } from "./counts.ts";

/** `turn`: the request is among the first that may hold the key, and waits for another one. */
export type ClaimKind = "holds" | "turn" | "waits";

/** Returns what a claim is, by its place among the claims of its key. Claims that the user may not view have none. */
export function kindOf(limit: HeldLimit, index: number): ClaimKind {
  if (limit.claims[index]?.holds) return "holds";
  return limit.holding < limit.max && index < limit.max ? "turn" : "waits";
}

/** Returns how full a limit is, such as "1 of 1 held, 2 wait". */
export function fullnessText({ holding, max, waiting }: HeldLimit): string {
  const held = `${countText(holding)} of ${countText(max)} held`;
  if (waiting === 0) return held;
  return `${held}, ${countOf(waiting, "waits", "wait")}`;
}

/** Returns the limits in the order in which people look for them: those with the most waiting requests first. */
export function sortedLimits(limits: readonly HeldLimit[]): HeldLimit[] {
  return [...limits].sort(
    (one, other) => other.waiting - one.waiting || (one.key < other.key ? -1 : Number(one.key > other.key)),
  );
}

/** How many claims a limit has that its list does not show: the user may not view them, or they are too many. */
export function hiddenClaims({ holding, waiting, claims }: HeldLimit): number {
  return Math.max(0, holding + waiting - claims.length);
}

/** Whether a request waits for a limit. The API says so only in words. */
export function waitsForLimit(waiting: string | undefined): boolean {
  return (waiting ?? "").startsWith("waits for the limit ");
}

/** What keeps a request from a key. */
export interface Wait {
  key: string;
  since: string;
  /** The requests before it, in their order. */
  before: LimitClaim[];
}

/** Returns the keys that a request waits for, because others are before it. */
export function waitsOf(limits: readonly HeldLimit[], requestId: string): Wait[] {
  const waits: Wait[] = [];
  for (const limit of limits) {
    const index = limit.claims.findIndex((claim) => claim.requestId === requestId);
    const claim = limit.claims[index];
    if (claim && kindOf(limit, index) === "waits")
      waits.push({ key: limit.key, since: claim.since, before: limit.claims.slice(0, index) });
  }
  return waits;
}
