import assert from "node:assert/strict";
import { test } from "node:test";

import type { HeldLimit, PendingApproval } from "../src/api/types.ts";
import { missingText } from "../src/model/approvals.ts";
import {
  fullnessText,
  hiddenClaims,
  kindOf,
  limitsNote,
  sequenceClaims,
  sequenceText,
  sortedLimits,
  waitsForLimit,
  waitsOf,
} from "../src/model/limits.ts";

/** A limit with requests a, b, c …, of which the first `holding` hold it. `left`: claims that the user may not view. */
function limit(key: string, max: number, holding: number, claims: number, left = 0): HeldLimit {
  return {
    key,
    max,
    holding,
    waiting: claims + left - holding,
    claims: [..."abcdefgh"].slice(0, claims).map((requestId, index) => ({
      requestId,
      requestType: "upgrade",
      user: "",
      state: 1,
      since: `2026-01-01T00:00:0${index}Z`,
      holds: index < holding,
    })),
  };
}

test("a claim holds its key, has its turn, or waits", () => {
  const kinds = (of: HeldLimit) => of.claims.map((_, index) => kindOf(of, index));
  assert.deepEqual(kinds(limit("k", 1, 1, 3)), ["holds", "waits", "waits"]);
  assert.deepEqual(kinds(limit("k", 2, 1, 3)), ["holds", "turn", "waits"]);
  assert.deepEqual(kinds(limit("k", 5, 1, 2)), ["holds", "turn"]);
});

test("how full a limit is", () => {
  assert.equal(fullnessText(limit("k", 1, 1, 1)), "1 of 1 held");
  assert.equal(fullnessText(limit("k", 1, 1, 2)), "1 of 1 held, 1 waits");
  assert.equal(fullnessText(limit("k", 1000, 3, 5)), "3 of 1,000 held, 2 wait");
  assert.equal(hiddenClaims(limit("k", 1, 1, 2, 4)), 4);
});

test("limits for which most requests wait come first", () => {
  const limits = [limit("b", 1, 1, 1), limit("a", 1, 1, 1), limit("c", 1, 1, 3)];
  assert.deepEqual(
    sortedLimits(limits).map(({ key }) => key),
    ["c", "a", "b"],
  );
});

test("a request waits for those before it, and not for a key at which it has its turn", () => {
  const waits = waitsOf([limit("full", 1, 1, 3), limit("free", 5, 1, 3), limit("other", 1, 1, 1)], "c");
  assert.deepEqual(
    waits.map(({ key, since, before, count }) => [key, since, before.map(({ requestId }) => requestId), count]),
    [["full", "2026-01-01T00:00:02Z", ["a", "b"], 2]],
  );
  assert.ok(waitsForLimit("waits for the limit cluster/c1 of 1 since 2026-01-01T00:00:00Z: request a holds it"));
  assert.ok(!waitsForLimit("paused by ann"));
  assert.ok(!waitsForLimit(undefined));
});

test("a request waits behind claims that the list leaves out", () => {
  const behind = limit("k", 150, 149, 3);
  behind.claims.forEach((claim, index) => Object.assign(claim, { place: index + 1, holds: true }));
  Object.assign(behind.claims[2]!, { place: 300, holds: false });
  assert.equal(kindOf(behind, 2), "waits");
  assert.deepEqual(
    waitsOf([behind], "c").map(({ before, count }) => [before.length, count]),
    [[2, 299]],
  );
  behind.claims[2]!.place = 150;
  assert.equal(kindOf(behind, 2), "turn");
  assert.deepEqual(waitsOf([behind], "c"), []);
  delete behind.claims[2]!.place; // An older server.
  assert.equal(kindOf(behind, 2), "turn");
});

test("what the sequences of a request hold and wait for, the waits first", () => {
  const sequence = (of: HeldLimit, index: number, sequenceId: string, ...sequencePath: string[]) =>
    Object.assign(of.claims[index]!, { requestId: "x", sequenceId, sequencePath });
  const one = limit("one", 1, 1, 3);
  const two = limit("two", 1, 1, 2);
  sequence(one, 0, "aaaa", "roll", "host web7");
  sequence(one, 2, "bbbb", "roll", "host web8", "inner");
  sequence(two, 1, "cccc");
  assert.deepEqual(
    sequenceClaims([one, two], "x").map(({ key, claim }) => [key, sequenceText(claim), claim.holds]),
    [["two", "cccc", false], ["one", "host web8 / inner", false], ["one", "host web7", true]],
  );
  assert.equal(sequenceText(two.claims[0]!), "");
  assert.deepEqual(waitsOf([one, two], "x"), []);
  assert.equal(limitsNote([{ key: "a", max: 1 }, { key: "b", max: 1000 }]), "at most 1 with a, at most 1,000 with b");
  assert.equal(
    limitsNote([
      { key: "a", max: 1, policy: "replace" },
      { key: "b", max: 2, policy: "refuse" },
      { key: "c", max: 3, policy: "queue" },
    ]),
    "at most 1 with a, replaces others, at most 2 with b, refused if reached, at most 3 with c",
  );
  assert.equal(limitsNote(undefined), "");
});

test("what is missing of an approval names the roles that may decide", () => {
  const missing = (approvals: number, roles: string[], approved: number) =>
    missingText({
      approval: { roles, approvals },
      decisions: Array.from({ length: approved }, () => ({ approved: true })),
    } as unknown as PendingApproval);
  assert.equal(missing(1, ["dba"], 0), "1 approval by dba");
  assert.equal(missing(3, ["dba", "lead", "boss"], 1), "2 more of 3 approvals by dba, lead or boss");
});
