// Calls a server with types that openapi-typescript has made.
import { setTimeout as sleep } from "node:timers/promises";

import createClient from "openapi-fetch";

import type { paths } from "./client/paths.js";

const COMPLETE = 3;

const api = createClient<paths>({ baseUrl: process.argv[2]! });
const created = await api.POST("/api/v1/requests", {
  params: { header: { "Idempotency-Key": "openapi-typescript" } },
  body: { Type: "nap", Args: { ms: "1" } },
});
let request = created.data!;
const path = { request_id: request.id };
while (request.state !== COMPLETE) {
  await sleep(50);
  request = (await api.GET("/api/v1/requests/{request_id}", { params: { path } })).data!;
}
const log = await api.GET("/api/v1/requests/{request_id}/log", { params: { path } });
const { error, response } = await api.GET("/api/v1/requests/{request_id}", {
  params: { path: { request_id: "nosuch" } },
});
if (error?.message !== "request nosuch not found") throw new Error("the error has the wrong message");
console.log(`complete ${request.finishedJobs} log ${log.data!.length} error ${response.status}`);
