/** Asks the server what requests wait for. */

import { call, read, type Answer } from "../api/call";
import type { Approvals, HeldLimit } from "../api/types";

export function askApprovals(): Promise<Approvals> {
  return read<Approvals>("/api/v1/approvals");
}

/** Asks for a key of limits. Empty: for all of them, in pages. */
export function askLimits(key: string): Promise<Answer<HeldLimit[]>> {
  return call<HeldLimit[]>(`/api/v1/limits${key ? `?${new URLSearchParams({ key })}` : ""}`);
}

/** Asks for the keys that a request or its sequences hold or wait for, in pages. */
export function askLimitsOf(requestId: string): Promise<Answer<HeldLimit[]>> {
  return call<HeldLimit[]>(`/api/v1/limits?${new URLSearchParams({ requestId })}`);
}
