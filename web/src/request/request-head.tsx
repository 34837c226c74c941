/** The head of a request: its state, who created it and when, its args, and what it waits for. */

import { countText } from "../model/counts";
import { Actions } from "./actions";
import type { RequestModel } from "./request-model";
import type { Request } from "../api/types";
import { waitsForLimit } from "../model/limits";
import { hasEnded, isPaused, RUNNING, stateClass, stateLabel } from "../model/states";
import { durationText, waitingText } from "../model/times";
import { Badge } from "../parts/badge";
import { Link } from "../parts/address";
import { Ago, Time } from "../parts/time";

interface Props {
  model: RequestModel;
  request: Request;
  now: number;
}

export function RequestHead({ model, request, now }: Props) {
  return (
    <section class="head">
      <nav class="crumbs" aria-label="Breadcrumb">
        <Link to="/requests">Requests</Link> <span aria-hidden="true">/</span>{" "}
        <Link to={`/requests?type=${encodeURIComponent(request.type)}`}>{request.type}</Link>
      </nav>
      <div class="head-title">
        <h1>{request.type}</h1>
        <Badge
          state={request.state}
          label={isPaused(request.waiting) ? "Paused" : stateLabel(request.state)}
        />
        <Connection model={model} request={request} />
        <Actions request={request} onDone={() => void model.refresh()} />
      </div>
      {request.waiting &&
        !waitsForLimit(request.waiting) &&
        (!request.approvals || isPaused(request.waiting)) && (
          <p class="notice">{waitingText(request.waiting)}</p>
        )}
      {model.isGone && <p class="notice notice-error">This request was deleted because of its age.</p>}
      {model.error && (
        <p class="notice notice-error" role="alert">
          {model.error.message}
        </p>
      )}
      <Progress request={request} />
      <Facts request={request} now={now} />
    </section>
  );
}

const CONNECTIONS = {
  connecting: "Connecting…",
  live: "Live",
  reconnecting: "Reconnecting…",
  ended: "",
  failed: "Not live",
};

function Connection({ model, request }: { model: RequestModel; request: Request }) {
  const text = CONNECTIONS[model.connection];
  const isShown = text && !hasEnded(request.state);
  return (
    <span class={`connection connection-${model.connection}`} role="status">
      {isShown ? text : ""}
    </span>
  );
}

function Progress({ request }: { request: Request }) {
  const total = request.totalTasks || request.totalJobs;
  const finished = request.totalTasks ? (request.finishedTasks ?? 0) : request.finishedJobs;
  return (
    <div class="progress">
      <progress
        class={`state-${stateClass(request.state)}`}
        max={total || 1}
        value={finished}
        aria-label="Complete jobs"
      />
      <span>
        {countText(finished)} of {countText(total)} jobs complete
      </span>
    </div>
  );
}

function Facts({ request, now }: { request: Request; now: number }) {
  const end = request.finishedAt ? Date.parse(request.finishedAt) : now;
  return (
    <dl class="facts">
      <Fact name="Request">
        <code>{request.id}</code>
      </Fact>
      {request.user && <Fact name="User">{request.user}</Fact>}
      <Fact name="Created">
        <Time at={request.createdAt} />{" "}
        <span class="quiet">
          (<Ago at={request.createdAt} now={now} />)
        </span>
      </Fact>
      {request.startedAt && (
        <Fact
          name={
            hasEnded(request.state) ? "Took" : request.state === RUNNING ? "Running for" : "Since its start"
          }
        >
          {durationText(end - Date.parse(request.startedAt))}
        </Fact>
      )}
      {request.finishedAt && (
        <Fact name="Ended">
          <Time at={request.finishedAt} />
        </Fact>
      )}
      {request.jrURL && <Fact name="Job Runner">{request.jrURL}</Fact>}
      {request.stopReason && <Fact name="Stop reason">{request.stopReason}</Fact>}
      {request.retryOf && (
        <Fact name="Retry of">
          <Link to={`/requests/${request.retryOf}`}>{request.retryOf}</Link>
        </Fact>
      )}
      {request.retriedBy && (
        <Fact name="Retried by">
          <Link to={`/requests/${request.retriedBy}`}>{request.retriedBy}</Link>
        </Fact>
      )}
      {request.traceId && (
        <Fact name="Trace">
          <code>{request.traceId}</code>
        </Fact>
      )}
    </dl>
  );
}

function Fact({ name, children }: { name: string; children: preact.ComponentChildren }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}
