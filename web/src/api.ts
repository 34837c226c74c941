/** Calls of the API. The session cookie identifies the user; no token is in the hands of scripts. */

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

export interface Request {
  id: string;
  type: string;
  state: number;
  user: string;
  createdAt: string;
  finishedAt: string | null;
  totalJobs: number;
  finishedJobs: number;
  waiting?: string;
}

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
  runningRequests: number;
  runningJobs: number;
  moreRequests?: boolean;
  draining?: boolean;
  full?: boolean;
  silent?: boolean;
}

/** The names of the states by number. Requests have no state 0 and 5. */
export const STATES = ["", "PENDING", "RUNNING", "COMPLETE", "FAIL", "", "STOPPED", "SUSPENDED"];

/** An error answer. Its message is a sentence for the user. */
export class ApiError extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly reason: string,
  ) {
    super(message);
  }

  /** Whether the session has ended. The original's routes also answer 401 to a user who may not do something. */
  get needsSignIn(): boolean {
    return this.status === 401 && this.reason !== "ACCESS_DENIED";
  }
}

export interface Answer<Body> {
  body: Body;
  nextPageToken: string;
}

/** Calls a path of the server, and reads its JSON. Raises ApiError. */
export async function call<Body>(path: string, init: RequestInit = {}): Promise<Answer<Body>> {
  const headers = { "X-Spincycle-Page": "1", ...init.headers };
  let response: Response;
  try {
    response = await fetch(path, { ...init, headers, credentials: "same-origin" });
  } catch {
    throw new ApiError("The server cannot be reached.", 0, "UNAVAILABLE");
  }
  const text = await response.text();
  if (!response.ok) {
    throw new ApiError(messageOf(text), response.status, response.headers.get("X-Spincycle-Reason") ?? "");
  }
  const nextPageToken = response.headers.get("X-Spincycle-Next-Page-Token") ?? "";
  return { body: (text ? JSON.parse(text) : null) as Body, nextPageToken };
}

function messageOf(text: string): string {
  try {
    const { message } = JSON.parse(text) as { message?: unknown };
    if (typeof message === "string" && message) return message;
  } catch {
    // A proxy may answer with something else than JSON.
  }
  return "The server answered with an error.";
}
