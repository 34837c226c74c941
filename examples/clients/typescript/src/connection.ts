import { readFile } from "node:fs/promises";
import { readFileSync } from "node:fs";

import { credentials, Metadata, type ChannelCredentials } from "@grpc/grpc-js";
import { createChannel, createClientFactory } from "nice-grpc";
import { deadlineMiddleware, type DeadlineOptions } from "nice-grpc-client-middleware-deadline";
import { errorDetailsClientMiddleware } from "nice-grpc-error-details";

import { RequestManagerDefinition, type RequestManagerClient } from "./gen/spincycle/v1/request_manager.js";
import serviceConfig from "./gen/service_config.json" with { type: "json" };

/** The limit of one call, in milliseconds. The stream of Watch has none. */
const DEADLINE = 10_000;

export type Client = RequestManagerClient<DeadlineOptions>;

/**
 * Opens a channel to $SPINC_ADDR. $SPINC_CA, a PEM file, turns on TLS, and $SPINC_TOKEN_FILE has the
 * token of the user. The channel connects with the first call.
 */
export function connect(): Client {
  const channel = createChannel(process.env.SPINC_ADDR ?? "localhost:32318", channelCredentials(), {
    // Which calls gRPC repeats, and that it uses all addresses of a name.
    "grpc.service_config": JSON.stringify(serviceConfig),
    // Notice within 40 seconds that a server is gone, although the connection is not closed.
    "grpc.keepalive_time_ms": 30_000,
    "grpc.keepalive_timeout_ms": 10_000,
  });
  return createClientFactory()
    .use(errorDetailsClientMiddleware)
    .use(deadlineMiddleware)
    .create(RequestManagerDefinition, channel, {
      "*": { deadline: DEADLINE },
      watch: { deadline: undefined },
    });
}

function channelCredentials(): ChannelCredentials {
  const { SPINC_CA: ca, SPINC_TOKEN_FILE: tokenFile } = process.env;
  if (!ca) {
    if (tokenFile) throw new Error("a token needs TLS: set SPINC_CA");
    return credentials.createInsecure();
  }
  const tls = credentials.createSsl(readFileSync(ca));
  if (!tokenFile) return tls;
  // The file is read for each call, so the token may change.
  const bearer = credentials.createFromMetadataGenerator((_, callback) => {
    readFile(tokenFile, "utf8").then(
      (token) => {
        const metadata = new Metadata();
        metadata.set("authorization", `Bearer ${token.trim()}`);
        callback(null, metadata);
      },
      (error: Error) => callback(error),
    );
  });
  return credentials.combineChannelCredentials(tls, bearer);
}
