/** Approvals that a request waits for: who may decide, and what is missing. */

import type { Caller, PendingApproval } from "../api/types.ts";

/** Whether a user may decide, as the server decides it. It checks each call anyway. */
export function mayDecide(caller: Caller | null, approval: PendingApproval): boolean {
  if (!caller) return false;
  const hasRole = caller.isAdmin || caller.roles.some((role) => approval.approval.roles.includes(role));
  const isOwn = approval.requester !== "" && approval.requester === caller.user;
  const hasDecided = approval.decisions.some((decision) => decision.user === caller.user);
  return hasRole && !hasDecided && (!isOwn || approval.approval.byRequester === true);
}

/** Returns how many further people must approve, such as "1 more of 2 approvals by dba". */
export function missingText({ approval, decisions }: PendingApproval): string {
  const left = approval.approvals - decisions.filter((decision) => decision.approved).length;
  const number = approval.approvals > 1 ? `${left} more of ${approval.approvals} approvals` : "1 approval";
  const roles = approval.roles.slice(0, -1).join(", ");
  return `${number} by ${roles ? `${roles} or ` : ""}${approval.roles.at(-1) ?? ""}`;
}
