import assert from "node:assert/strict";
import { test } from "node:test";

import type { Request } from "../src/api/types.ts";
import { bucketsOf, bucketText, stacked } from "../src/model/buckets.ts";
import { fromLocalTime, localTime, readFilters, writeFilters } from "../src/model/list-filters.ts";
import { merged } from "../src/model/merge.ts";
import { COMPLETE, FAIL, RUNNING } from "../src/model/states.ts";

const request = (id: string, state: number, createdAt = "2026-11-29T12:00:00Z"): Request => ({
  id,
  type: "nap",
  state,
  user: "",
  createdAt,
  startedAt: null,
  finishedAt: null,
  totalJobs: 1,
  finishedJobs: 0,
});

const ids = (requests: Request[]) => requests.map((one) => one.id);

test("filters survive the way through the address", () => {
  const text = "type=nap&state=FAIL&user=ann&since=2026-11-29T12%3A00%3A00.000Z&arg=a%3D1&arg=b%3Dx%3Dy";
  assert.equal(writeFilters(readFilters(new URLSearchParams(text))).toString(), text);
});

test("what the API would refuse is left out", () => {
  const filters = readFilters(new URLSearchParams("state=BROKEN&since=yesterday&arg=noequals&pageToken=x"));
  assert.equal(writeFilters(filters).toString(), "");
});

test("a time keeps its minute on the way through a field", () => {
  assert.equal(fromLocalTime(localTime("2026-11-29T12:34:00.000Z")), "2026-11-29T12:34:00.000Z");
  assert.equal(fromLocalTime(""), "");
});

const FIRST = { isFirstPage: true, hasMore: false, state: "", pageSize: 3 };

test("the first page gets new requests, newest first", () => {
  const shown = [request("c", RUNNING), request("b", RUNNING), request("a", COMPLETE)];
  assert.deepEqual(ids(merged(shown, [request("d", RUNNING)], FIRST)), ["d", "c", "b"]);
});

test("other pages change only the states of what they show", () => {
  const list = merged([request("b", RUNNING)], [request("b", FAIL), request("c", RUNNING)], {
    ...FIRST,
    isFirstPage: false,
  });
  assert.deepEqual(
    list.map((one) => [one.id, one.state]),
    [["b", FAIL]],
  );
});

test("a request that no longer matches the state leaves the first page", () => {
  const options = { ...FIRST, state: "RUNNING" };
  assert.deepEqual(
    ids(
      merged(
        [request("b", RUNNING), request("a", RUNNING)],
        [request("b", FAIL), request("c", FAIL)],
        options,
      ),
    ),
    ["a"],
  );
});

test("what is older than the page belongs to the next one", () => {
  assert.deepEqual(
    ids(
      merged([request("c", RUNNING), request("b", RUNNING)], [request("a", FAIL)], {
        ...FIRST,
        hasMore: true,
      }),
    ),
    ["c", "b"],
  );
});

test("each request is in one interval", () => {
  const at = (second: number) => new Date(Date.UTC(2026, 10, 29, 12, 0, second)).toISOString();
  const requests = [
    request("a", FAIL, at(0)),
    request("b", COMPLETE, at(1)),
    request("c", RUNNING, at(90)),
    request("d", COMPLETE, at(90)),
  ];
  const buckets = bucketsOf(requests, Date.parse(at(100)))!;
  const sums = Object.values(buckets.counts).map((list) => list.reduce((one, other) => one + other, 0));
  assert.equal(
    sums.reduce((one, other) => one + other, 0),
    4,
  );
  assert.ok(buckets.starts.length <= 48);
  assert.equal(bucketText(buckets, 0), "1 failed, 1 complete");
  assert.equal(
    stacked(buckets)
      .at(-1)!
      .reduce((one, other) => Math.max(one, other), 0),
    2,
  );
  assert.equal(bucketsOf([], 0), null);
});

test("any span of time has few intervals", () => {
  for (const days of [0, 0.001, 1, 30, 4000]) {
    const buckets = bucketsOf([request("a", FAIL, new Date(0).toISOString())], days * 86_400_000)!;
    assert.ok(buckets.starts.length >= 1 && buckets.starts.length <= 48, `${days}: ${buckets.starts.length}`);
  }
});
