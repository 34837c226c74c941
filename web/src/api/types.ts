/** The messages of the public API that the page reads, as the JSON API writes them. */

export interface Session {
  authentication: boolean;
  signedIn: boolean;
  user: string;
  roles: string[];
  authMethod: string;
  isAdmin: boolean;
  expiresAt: number | null;
  signIn: ("token" | "oidc")[];
  needsTls: boolean;
}

export type Json = null | boolean | number | string | Json[] | { [name: string]: Json };

export interface RequestArg {
  Name: string;
  Desc: string;
  Type: "required" | "optional" | "static";
  Given: boolean;
  Default: Json;
  Value: Json;
}

export interface RequestSpec {
  Name: string;
  Args: RequestArg[];
}

export interface Request {
  id: string;
  type: string;
  state: number;
  user: string;
  args?: RequestArg[];
  createdAt: string;
  startedAt: string | null;
  finishedAt: string | null;
  JobChain?: JobChain;
  totalJobs: number;
  finishedJobs: number;
  totalTasks?: number;
  finishedTasks?: number;
  jrURL?: string;
  waiting?: string;
  /** The state in which the request ends after its `finally` jobs. Left out if it goes on or has ended. */
  ending?: number;
  /** Why the request was stopped. Left out if a user stopped it, or nobody did. */
  stopReason?: string;
  retryOf?: string;
  retriedBy?: string;
  traceId?: string;
  /** What the request waits for. Left out if it waits for no approval. */
  approvals?: PendingApproval[];
}

export interface PendingApproval {
  requestId: string;
  requestType: string;
  requester: string;
  jobId: string;
  try: number;
  path: string[];
  approval: {
    roles: string[];
    approvals: number;
    byRequester?: boolean;
    message?: string;
    timeout: string;
    continueOnTimeout?: boolean;
  };
  openedAt: string;
  deadline: string;
  decisions: { user: string; approved: boolean; comment?: string; decidedAt: string }[];
  mayDecide: boolean;
}

export interface Approvals {
  approvals: PendingApproval[];
  more: boolean;
}

/** A key of a limit. The claims are those that the user may view. */
export interface HeldLimit {
  key: string;
  max: number;
  holding: number;
  waiting: number;
  claims: LimitClaim[];
}

export interface LimitClaim {
  requestId: string;
  requestType: string;
  user: string;
  state: number;
  since: string;
  holds: boolean;
  /** The sequence of the request. Unset: the whole request. */
  sequenceId?: string;
  sequencePath?: string[];
  /** Its number in the order of the key, from 1. Unset: the server is older, and the list may have no gap. */
  place?: number;
}

/** A limit that a request or a sequence counts for. */
export interface Limit {
  key: string;
  max: number;
  policy?: string;
}

export interface Job {
  id: string;
  name: string;
  type: string;
  state: number;
  args?: { [name: string]: Json };
  retry: number;
  retryWait?: string;
  retryBackoff?: { factor?: number; max?: string; jitter?: boolean };
  sequenceId: string;
  sequenceRetry: number;
  parentSequenceId?: string;
  timeout?: string;
  /** Whether the job belongs to the `finally` part of a sequence. */
  isFinally?: boolean;
  /** The limits of the sequence that starts with the job. */
  sequenceLimits?: Limit[];
}

export interface JobChain {
  requestId: string;
  jobs: Record<string, Job>;
  adjacencyList: Record<string, string[]>;
  pathLabels?: Record<string, string>;
  /** The limits that the request counts for. */
  limits?: Limit[];
  /** The sliding windows, by the id of the job after which the elements begin. */
  windows?: Record<string, { max: number; stopAfterFailures?: number }>;
}

/** A finished try. Times are nanoseconds since 1970; JSON.parse rounds them to less than a microsecond. */
export interface JobLog {
  requestId: string;
  jobId: string;
  try: number;
  name: string;
  type: string;
  startedAt: number;
  finishedAt: number;
  state: number;
  exit: number;
  error: string;
  stdout: string;
  stderr: string;
  path?: string[];
}

/** A job that runs now, or waits for its next try. */
export interface JobStatus {
  jobId: string;
  name: string;
  type: string;
  startedAt: number;
  state: number;
  status?: string;
  try: number;
  path?: string[];
}

export interface WatchMessage {
  cursor?: string;
  requests?: Request[];
  tries?: JobLog[];
  running?: { requestId: string; jobs: JobStatus[] }[];
  gone?: string[];
  snapshotComplete?: boolean;
  reset?: { reason: string; message: string };
}

export interface OutputMessage {
  cursor: string;
  text?: { stream: StreamName; offset: number; text: string };
  gap?: { stream: StreamName; from: number; to: number; reason: string };
  end?: { state: number; exit: number; error: string; try: number };
}

export type StreamName = "stdout" | "stderr";

export interface StateCount {
  state: number;
  count: number;
  more?: boolean;
}

export interface Runner {
  id: string;
  url: string;
  version?: string;
  startedAt?: string;
  labels?: Record<string, string>;
  jobTypes?: string[];
  knowsAllJobTypes?: boolean;
  runningRequests: number;
  runningJobs: number;
  moreRequests?: boolean;
  draining?: boolean;
  full?: boolean;
  silent?: boolean;
}

export interface Configuration {
  version: string;
  apiVersion: string;
  database: string;
  options: { name: string; value: string; source: string }[];
  health: { name: string; healthy: boolean; message: string }[];
}

/** An event that is sent to a target. */
export interface Delivery {
  eventId: string;
  target: string;
  event: string;
  requestId?: string;
  requestType?: string;
  occurredAt: string;
  state: "waiting" | "delivered" | "given-up";
  attempts: number;
  lastError?: string;
}

export interface Deliveries {
  deliveries: Delivery[];
  targets: string[];
}

export interface Caller {
  user: string;
  roles: string[];
  authMethod: string;
  isAdmin: boolean;
  permissions: { type: string; operations: string[] }[];
}
