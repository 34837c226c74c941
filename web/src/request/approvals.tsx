/** The approvals that a request waits for, at the top of the page: what is asked, and the buttons to decide. */

import { useState } from "preact/hooks";

import { call } from "../api/call";
import type { PendingApproval, Request } from "../api/types";
import { mayDecide, missingText } from "../model/approvals";
import { useCaller } from "../parts/caller";
import { ConfirmDialog } from "../parts/dialog";
import { Ago, Time } from "../parts/time";

const LONGEST_COMMENT = 800;

type Decision = "approve" | "reject";

interface Props {
  request: Request;
  now: number;
  onDone: () => void;
}

export function Approvals({ request, now, onDone }: Props) {
  return (
    <>
      {(request.approvals ?? []).map((approval) => (
        <Approval key={`${approval.jobId} ${approval.try}`} approval={approval} now={now} onDone={onDone} />
      ))}
    </>
  );
}

interface ApprovalProps {
  approval: PendingApproval;
  now: number;
  onDone: () => void;
}

function Approval({ approval, now, onDone }: ApprovalProps) {
  const caller = useCaller();
  const [asked, ask] = useState<Decision | null>(null);
  const title = `approval-${approval.jobId}`;
  return (
    <section class="approval" aria-labelledby={title}>
      <h2 id={title}>{approval.approval.message || `${approval.path.at(-1)} waits for an approval`}</h2>
      <p class="quiet">
        Needs {missingText(approval)}. Waits since <Time at={approval.openedAt} /> (
        <Ago at={approval.openedAt} now={now} />
        ), until <Time at={approval.deadline} />, then it{" "}
        {approval.approval.continueOnTimeout ? "goes on" : "fails"}. Job <code>{approval.jobId}</code>
      </p>
      {approval.decisions.map((decision) => (
        <p key={decision.user}>
          {decision.approved ? "Approved" : "Rejected"} by {decision.user}
          {decision.comment ? `: ${decision.comment}` : ""}
        </p>
      ))}
      {mayDecide(caller, approval) && (
        <div class="failure-buttons">
          <button class="primary" onClick={() => ask("approve")}>
            Approve
          </button>
          <button onClick={() => ask("reject")}>Reject</button>
        </div>
      )}
      {asked && (
        <DecisionDialog decision={asked} approval={approval} onDone={onDone} onClose={() => ask(null)} />
      )}
    </section>
  );
}

function DecisionDialog({
  decision,
  approval,
  onDone,
  onClose,
}: {
  decision: Decision;
  approval: PendingApproval;
  onDone: () => void;
  onClose: () => void;
}) {
  const [comment, setComment] = useState("");
  const decide = async () => {
    // The try that the user has seen: a job that asks anew must be looked at again.
    const body = { jobId: approval.jobId, try: approval.try, comment };
    await call(`/api/v1/requests/${approval.requestId}/${decision}`, {
      method: "PUT",
      body: JSON.stringify(body),
      headers: { "Content-Type": "application/json" },
    });
    onDone();
  };
  return (
    <ConfirmDialog
      title={decision === "approve" ? "Approve?" : "Reject?"}
      verb={decision === "approve" ? "Approve" : "Reject"}
      isDangerous={decision === "reject"}
      onConfirm={decide}
      onClose={onClose}
    >
      {approval.approval.message && <p>{approval.approval.message}</p>}
      <label>
        Comment
        <textarea
          maxLength={LONGEST_COMMENT}
          value={comment}
          onInput={(event) => setComment(event.currentTarget.value)}
        />
      </label>
      <p class="quiet">
        Your name and the comment are kept in the job log. A decision cannot be taken back.
      </p>
    </ConfirmDialog>
  );
}
