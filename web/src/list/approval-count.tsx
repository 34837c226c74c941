/** How many requests wait for an approval, with a link to them. */

import type { OnError } from "../api/call";
import { countText } from "../model/counts";
import { Link } from "../parts/address";
import { usePolled } from "../parts/use-polled";
import { askApprovals } from "../waiting/ask";

/** Those who may not list approvals, or whom the server does not answer, see the list above without this link. */
const ignore: OnError = () => undefined;

export function ApprovalCount() {
  const found = usePolled(askApprovals, ignore);
  if (!found?.approvals.length) return null;
  const requests = new Set(found.approvals.map(({ requestId }) => requestId)).size;
  return (
    <Link class="button" to="/waiting">
      Waiting for approval{" "}
      <span class="count">{countText(requests, found.more)}</span>
    </Link>
  );
}
