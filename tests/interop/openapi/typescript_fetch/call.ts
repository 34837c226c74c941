// Calls a server with a client that openapi-generator has made.
import { setTimeout as sleep } from "node:timers/promises";

import { Configuration, RequestManagerApi, ResponseError, State } from "./client/index.js";

const api = new RequestManagerApi(new Configuration({ basePath: process.argv[2]! }));
let request = await api.requestManagerCreate({
  createRequest: { type: "nap", args: { ms: "1" } },
  idempotencyKey: "typescript-fetch",
});
while (request.state !== State.STATE_COMPLETE) {
  await sleep(50);
  request = await api.requestManagerGet({ requestId: request.id });
}
const log = await api.requestManagerGetLog({ requestId: request.id });
try {
  await api.requestManagerGet({ requestId: "nosuch" });
} catch (error) {
  if (!(error instanceof ResponseError)) throw error;
  console.log(`complete ${request.finishedJobs} log ${log.length} error ${error.response.status}`);
}
