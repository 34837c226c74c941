/**
 * Creates a request, follows it to its end, and prints its log.
 *
 *     follow run TYPE [NAME=VALUE ...]
 *     follow stop REQUEST_ID
 *
 * connection.ts says which environment variables name the server.
 */
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

import { ClientError, Status } from "nice-grpc";
import { RichClientError } from "nice-grpc-error-details";

import { connect, type Client } from "./connection.js";
import type { Request } from "./gen/spincycle/v1/request.js";
import type { WatchResponse } from "./gen/spincycle/v1/request_manager.js";
import { State } from "./gen/spincycle/v1/state.js";

/** Milliseconds before a call is repeated. */
const PAUSE = 1000;

/** The number of tries of Create. */
const TRIES = 5;

const TEMPORARY = [Status.UNAVAILABLE, Status.RESOURCE_EXHAUSTED, Status.DEADLINE_EXCEEDED];

async function run(client: Client, type: string, args: string[]): Promise<number> {
  const request = await create(client, type, args);
  console.log(`created ${request.id}`);
  const state = await watch(client, request.id);
  await printLog(client, request.id);
  return state === State.STATE_COMPLETE ? 0 : 1;
}

/** Creates a request. All tries have one idempotency key, so they create one request. */
async function create(client: Client, type: string, args: string[]): Promise<Request> {
  const values = Object.fromEntries(args.map((arg) => arg.split(/=(.*)/s, 2)));
  const idempotencyKey = randomUUID();
  for (let attempt = 1; ; attempt++) {
    try {
      const { request } = await client.create({ type, args: values, idempotencyKey });
      return request!;
    } catch (error) {
      if (reasonOf(error) === "UNKNOWN_REQUEST_TYPE") await printTypes(client);
      if (attempt === TRIES || !isTemporary(error)) throw error;
      await sleep(PAUSE);
    }
  }
}

/**
 * Prints what happens to a request until its end, and returns its final state. After a failure it
 * continues after the last message that it received.
 */
async function watch(client: Client, requestId: string): Promise<State> {
  let state = State.STATE_UNKNOWN;
  let cursor = "";
  for (;;) {
    try {
      for await (const message of client.watch({ requestId, cursor })) {
        print(message);
        state = message.requests.at(-1)?.state ?? state;
        cursor = message.cursor;
      }
      return state;
    } catch (error) {
      if (!isTemporary(error)) throw error;
      await sleep(PAUSE);
    }
  }
}

function print({ tries, requests }: WatchResponse): void {
  for (const one of tries) console.log(`tried ${one.name}, try ${one.try}: ${nameOf(one.state)}`);
  for (const one of requests) console.log(`${nameOf(one.state)}, ${one.finishedJobs} of ${one.totalJobs} jobs`);
}

/** Prints all tries of all jobs, page by page. */
async function printLog(client: Client, requestId: string): Promise<void> {
  let pageToken = "";
  do {
    const page = await client.getLog({ requestId, pageToken });
    for (const entry of page.entries) {
      console.log(`log ${entry.name}, try ${entry.try}: ${nameOf(entry.state)}, exit ${entry.exit}`);
      for (const text of [entry.stdout, entry.stderr]) {
        if (text) console.log(text.replace(/\n$/, "").replace(/^/gm, "  "));
      }
    }
    pageToken = page.nextPageToken;
  } while (pageToken);
}

async function printTypes(client: Client): Promise<void> {
  const { specs } = await client.requestList({});
  for (const spec of specs) console.error(`known type: ${spec.name}`);
}

function nameOf(state: State): string {
  return State[state].replace("STATE_", "");
}

/** Says whether a call that is safe to repeat may succeed later. */
function isTemporary(error: unknown): boolean {
  if (reasonOf(error) === "CREDENTIALS_ENDED") return true; // The token file may have a new token.
  return error instanceof ClientError && TEMPORARY.includes(error.code);
}

/**
 * Returns the reason of an error, for example "UNKNOWN_REQUEST_TYPE". docs/errors.md lists all reasons.
 * An error that does not come from the server has none.
 */
function reasonOf(error: unknown): string | undefined {
  if (!(error instanceof RichClientError)) return undefined;
  for (const detail of error.extra) {
    if (detail.$type === "google.rpc.ErrorInfo") return detail.reason;
  }
  return undefined;
}

const [command, subject, ...args] = process.argv.slice(2);
try {
  const client = connect();
  if (command === "run" && subject) {
    process.exitCode = await run(client, subject, args);
  } else if (command === "stop" && subject) {
    await client.stop({ requestId: subject });
  } else {
    console.error("usage: follow run TYPE [NAME=VALUE ...] | follow stop REQUEST_ID");
    process.exitCode = 2;
  }
} catch (error) {
  const message = error instanceof ClientError ? error.details : String(error);
  console.error(["error", reasonOf(error)].filter(Boolean).join(" ") + `: ${message}`);
  process.exitCode = 1;
}
