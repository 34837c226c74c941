/** What a user can do with a request in its state. Each action asks first. */

import { useState } from "preact/hooks";

import { call, newKey, send } from "../api/call";
import type { Request } from "../api/types";
import { FAIL, hasEnded, isPaused, STOPPED, stopText } from "../model/states";
import { go, Link } from "../parts/address";
import { may, useCaller } from "../parts/caller";
import { ConfirmDialog } from "../parts/dialog";

type Action = "stop" | "pause" | "resume" | "retry";

interface Props {
  request: Request;
  onDone: () => void;
}

function possible(request: Request): Action[] {
  if (request.state === FAIL || request.state === STOPPED) return request.retriedBy ? [] : ["retry"];
  if (hasEnded(request.state)) return [];
  if (request.ending) return ["stop"];
  return [isPaused(request.waiting) ? "resume" : "pause", "stop"];
}

const NAMES: Record<Action, string> = { stop: "Stop", pause: "Pause", resume: "Resume", retry: "Retry" };

/** A user who may start requests of a type may also retry them. */
export function mayDo(caller: ReturnType<typeof useCaller>, type: string, action: Action): boolean {
  if (action === "retry") return may(caller, type, "retry") || may(caller, type, "start");
  return may(caller, type, action === "resume" ? "pause" : action);
}

export function Actions({ request, onDone }: Props) {
  const caller = useCaller();
  const [asked, ask] = useState<Action | null>(null);
  const close = () => ask(null);
  return (
    <div class="actions">
      {possible(request)
        .filter((action) => mayDo(caller, request.type, action))
        .map((action) => (
          <button
            key={action}
            class={action === "retry" || action === "resume" ? "primary" : ""}
            onClick={() => ask(action)}
          >
            {NAMES[action]}
          </button>
        ))}
      {may(caller, request.type, "start") && (
        <Link class="button" to={`/start/${encodeURIComponent(request.type)}?from=${request.id}`}>
          Run again
        </Link>
      )}
      {asked === "retry" && <RetryDialog request={request} onClose={close} />}
      {asked === "pause" && <PauseDialog request={request} onDone={onDone} onClose={close} />}
      {(asked === "stop" || asked === "resume") && (
        <ChangeDialog action={asked} request={request} onDone={onDone} onClose={close} />
      )}
    </div>
  );
}

interface DialogProps {
  request: Request;
  onClose: () => void;
}

function put(request: Request, action: string): Promise<unknown> {
  return call(`/api/v1/requests/${request.id}/${action}`, { method: "PUT" });
}

function ChangeDialog({
  action,
  request,
  onDone,
  onClose,
}: DialogProps & { action: "stop" | "resume"; onDone: () => void }) {
  return (
    <ConfirmDialog
      title={action === "stop" ? `Stop ${request.type}?` : `Resume ${request.type}?`}
      verb={action === "stop" ? "Stop request" : "Resume request"}
      isDangerous={action === "stop"}
      onConfirm={() => put(request, action).then(onDone)}
      onClose={onClose}
    >
      {action === "resume" && <p>The request continues where it was.</p>}
      {action === "stop" && <p>{stopText(request)}</p>}
    </ConfirmDialog>
  );
}

function PauseDialog({ request, onDone, onClose }: DialogProps & { onDone: () => void }) {
  const [stopsJobs, setStopsJobs] = useState(false);
  return (
    <ConfirmDialog
      title={`Pause ${request.type}?`}
      verb="Pause request"
      onConfirm={() => put(request, stopsJobs ? "pause?now=true" : "pause").then(onDone)}
      onClose={onClose}
    >
      <p>No further job starts until you resume the request. Running jobs end by themselves.</p>
      <label class="check">
        <input
          type="checkbox"
          checked={stopsJobs}
          onChange={(event) => setStopsJobs(event.currentTarget.checked)}
        />
        Stop the running jobs now. They run again after you resume.
      </label>
    </ConfirmDialog>
  );
}

/** `from`: a job, which runs again with all jobs after it. */
export function RetryDialog({
  request,
  from,
  onClose,
}: DialogProps & { from?: { id: string; path: string } }) {
  const [key] = useState(newKey);
  const retry = async () => {
    const body = from ? { from: from.id } : {};
    const made = await send<Request>(`/api/v1/requests/${request.id}/retry`, body, {
      "Idempotency-Key": key,
    });
    go(`/requests/${made.body.id}`);
  };
  return (
    <ConfirmDialog
      title={from ? `Retry from ${from.path}?` : `Retry ${request.type}?`}
      verb="Retry request"
      onConfirm={retry}
      onClose={onClose}
    >
      <p>
        A new request does the rest of this one, with the same args. Jobs that are complete do not run again.
      </p>
      {from && <p>This job and all jobs after it run again, even if they are complete.</p>}
    </ConfirmDialog>
  );
}
