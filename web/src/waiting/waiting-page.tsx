/** What requests wait for: the approvals of people, and the keys of limits. */

import { useEffect } from "preact/hooks";

import type { OnError } from "../api/call";
import { ApprovalList } from "./approval-list";
import { LimitList } from "./limit-list";

interface Props {
  /** Only this key of a limit. Empty: all. */
  limit: string;
  onError: OnError;
}

export function WaitingPage({ limit, onError }: Props) {
  useEffect(() => {
    document.title = "Waiting – Spin Cycle";
  }, []);
  return (
    <div class="server">
      <div class="page-head">
        <h1>Waiting</h1>
      </div>
      <ApprovalList onError={onError} />
      <LimitList key={limit} limit={limit} onError={onError} />
    </div>
  );
}
