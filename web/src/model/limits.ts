/** Limits: which requests and sequences hold a key, and which wait for it. */

import type { HeldLimit, Limit, LimitClaim } from "../api/types.ts";
import { countOf, countText } from "./counts.ts";

/** `turn`: the request is among the first that may hold the key, and waits for another one. */
export type ClaimKind = "holds" | "turn" | "waits";

/** Returns how many are before a claim of a key, also those that the list of claims leaves out. */
function countBefore(limit: HeldLimit, index: number): number {
  const place = limit.claims[index]?.place;
  return place ? place - 1 : index;
}

/** Returns what a claim is, by its place in the order of its key. */
export function kindOf(limit: HeldLimit, index: number): ClaimKind {
  if (limit.claims[index]?.holds) return "holds";
  return limit.holding < limit.max && countBefore(limit, index) < limit.max ? "turn" : "waits";
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

/** What happens if a limit is reached, to follow its key. Those who wait need no words. */
const POLICIES: Readonly<Record<string, string>> = { replace: ", replaces others", refuse: ", refused if reached" };

/** Returns what a plan says of the limits of a sequence: "at most 1 with host/web7, replaces others". */
export function limitsNote(limits: readonly Limit[] | undefined): string {
  return (limits ?? [])
    .map(({ key, max, policy }) => `at most ${countText(max)} with ${key}${POLICIES[policy ?? ""] ?? ""}`)
    .join(", ");
}

/** Returns who has a claim, within its request: the path of a sequence without the type of the request, or nothing. */
export function sequenceText({ sequenceId, sequencePath }: LimitClaim): string {
  if (!sequenceId) return "";
  return (sequencePath ?? []).slice(1).join(" / ") || sequenceId;
}

/** What a sequence of a request holds or waits for. */
export interface SequenceClaim {
  key: string;
  claim: LimitClaim;
}

/** Returns what the sequences of a request hold or wait for: first those that wait, the longest first. */
export function sequenceClaims(limits: readonly HeldLimit[], requestId: string): SequenceClaim[] {
  const found: SequenceClaim[] = [];
  for (const { key, claims } of limits)
    for (const claim of claims) if (claim.requestId === requestId && claim.sequenceId) found.push({ key, claim });
  const rank = ({ claim }: SequenceClaim) => `${Number(claim.holds)} ${claim.since}`;
  return found.sort((one, other) => (rank(one) < rank(other) ? -1 : Number(rank(one) > rank(other))));
}

/** What keeps a request from a key. */
export interface Wait {
  key: string;
  since: string;
  /** The claims before it that the list has, in their order. */
  before: LimitClaim[];
  /** How many are before it. */
  count: number;
}

/** Returns the keys that a request waits for, because others are before it. */
export function waitsOf(limits: readonly HeldLimit[], requestId: string): Wait[] {
  const waits: Wait[] = [];
  for (const limit of limits) {
    const index = limit.claims.findIndex((claim) => claim.requestId === requestId && !claim.sequenceId);
    const claim = limit.claims[index];
    if (!claim || kindOf(limit, index) !== "waits") continue;
    const before = limit.claims.slice(0, index);
    waits.push({ key: limit.key, since: claim.since, before, count: countBefore(limit, index) });
  }
  return waits;
}
