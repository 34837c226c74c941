/** The requests that wait for an approval, the oldest first. */

import { useState } from "preact/hooks";

import type { OnError } from "../api/call";
import type { PendingApproval } from "../api/types";
import { missingText } from "../model/approvals";
import { countText } from "../model/counts";
import { Choices } from "../parts/choices";
import { StackedTable } from "../parts/stacked-table";
import { usePolled } from "../parts/use-polled";
import { Link } from "../parts/address";
import { Ago, Time, useNow } from "../parts/time";
import { askApprovals } from "./ask";

const COLUMNS = ["Request", "Needs", "Created by", "Waits since", "Until"];

export function ApprovalList({ onError }: { onError: OnError }) {
  const found = usePolled(askApprovals, onError);
  const now = useNow(true);
  const [isMine, setMine] = useState(false);
  const mine = (found?.approvals ?? []).filter((approval) => approval.mayDecide);
  const shown = isMine ? mine : (found?.approvals ?? []);
  return (
    <section aria-labelledby="approvals-title">
      <div class="toolbar">
        <h2 id="approvals-title">Approvals</h2>
        {found !== null && found.approvals.length > 0 && (
          <Choices
            label="Approvals to show"
            choices={[
              [false, "All", countText(found.approvals.length, found.more)],
              [true, "For me", mine.length],
            ]}
            chosen={isMine}
            onChoose={setMine}
          />
        )}
      </div>
      {found === null ? (
        <p role="status">Loading approvals…</p>
      ) : shown.length === 0 ? (
        <p class="quiet">
          {isMine ? "No request waits for your approval." : "No request waits for an approval."}
        </p>
      ) : (
        <StackedTable label="Table of approvals" columns={COLUMNS}>
          {shown.map((approval) => (
            <Row key={`${approval.requestId} ${approval.jobId}`} approval={approval} now={now} />
          ))}
        </StackedTable>
      )}
    </section>
  );
}

function Row({ approval, now }: { approval: PendingApproval; now: number }) {
  const { message } = approval.approval;
  return (
    <tr>
      <td class="cell-asked">
        <Link class="strong-link" to={`/requests/${approval.requestId}`}>
          {approval.requestType}
        </Link>
        <span class="below">{message || approval.path.slice(1).join(" / ")}</span>
      </td>
      <td data-label="Needs">
        {missingText(approval)}
        {approval.mayDecide && <span class="below">You may decide</span>}
      </td>
      <td data-label="Created by">{approval.requester}</td>
      <td data-label="Waits since">
        <Ago at={approval.openedAt} now={now} />
      </td>
      <td data-label="Until">
        <Time at={approval.deadline} />
        <span class="below">then it {approval.approval.continueOnTimeout ? "goes on" : "fails"}</span>
      </td>
    </tr>
  );
}
