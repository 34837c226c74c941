/** Calls of the API. The session cookie identifies the user; no token is in the hands of scripts. */

/** An error answer. Its message is a sentence for the user. */
export class ApiError extends Error {
  readonly status: number;
  readonly reason: string;

  constructor(message: string, status: number, reason: string) {
    super(message);
    this.status = status;
    this.reason = reason;
  }

  /** Whether the same call may succeed soon, for example after a restart of the server. */
  get isTemporary(): boolean {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }

  /** Whether the session has ended. The original's routes also answer 401 to a user who may not do something. */
  get needsSignIn(): boolean {
    return this.status === 401 && this.reason !== "ACCESS_DENIED";
  }
}

/** Shows an error, or asks to sign in again. Null: the calls succeed again. */
export type OnError = (error: ApiError | null) => void;

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
    throw unreachable();
  }
  const text = await response.text();
  if (!response.ok) {
    throw new ApiError(messageOf(text), response.status, response.headers.get("X-Spincycle-Reason") ?? "");
  }
  const nextPageToken = response.headers.get("X-Spincycle-Next-Page-Token") ?? "";
  return { body: (text ? JSON.parse(text) : null) as Body, nextPageToken };
}

/** Returns the JSON of a path. Raises ApiError. */
export async function read<Body>(path: string): Promise<Body> {
  return (await call<Body>(path)).body;
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

/** Sends a JSON body. */
export function send<Body>(
  path: string,
  body: unknown,
  headers: Record<string, string> = {},
): Promise<Answer<Body>> {
  return call<Body>(path, {
    method: "POST",
    body: JSON.stringify(body),
    headers: { "Content-Type": "application/json", ...headers },
  });
}

/** Reads all pages of a list, at most `most` entries. */
export async function allPages<Entry>(path: string, query: URLSearchParams, most: number): Promise<Entry[]> {
  const entries: Entry[] = [];
  let token = "";
  do {
    if (token) query.set("pageToken", token);
    const answer = await call<Entry[]>(`${path}?${query}`);
    entries.push(...answer.body);
    token = answer.nextPageToken;
  } while (token && entries.length < most);
  return entries;
}

/** Returns a new key that makes it safe to repeat a call that creates something. */
export function newKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Reads an answer that is plain text, whatever its status. Raises ApiError if the server cannot be reached. */
export async function readText(path: string): Promise<{ status: number; text: string }> {
  try {
    const response = await fetch(path, { credentials: "same-origin" });
    return { status: response.status, text: (await response.text()).trim() };
  } catch {
    throw unreachable();
  }
}

function unreachable(): ApiError {
  return new ApiError("The server cannot be reached.", 0, "UNAVAILABLE");
}
