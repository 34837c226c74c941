/** The rows of the list. */

import type { Request } from "../api/types";
import { countText } from "../model/counts";
import { hasEnded, isPaused, stateClass, stateLabel } from "../model/states";
import { durationText, shortWaitingText } from "../model/times";
import { Link } from "../parts/address";
import { Badge } from "../parts/badge";
import { Ago } from "../parts/time";

interface Props {
  /** Null: not yet loaded. */
  requests: Request[] | null;
  now: number;
}

const COLUMNS = ["State", "Type", "Jobs", "User", "Created", "Took", "Request"];

export function RequestTable({ requests, now }: Props) {
  if (requests === null) return <p role="status">Loading requests…</p>;
  if (requests.length === 0) return null;
  const hasUsers = requests.some((request) => request.user);
  const columns = COLUMNS.filter((name) => name !== "User" || hasUsers);
  return (
    <div class="table-place">
      <table class="request-table">
        <thead>
          <tr>
            {columns.map((name) => (
              <th key={name} scope="col" class={name === "Took" ? "number" : ""}>
                {name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {requests.map((request) => (
            <Row key={request.id} request={request} hasUsers={hasUsers} now={now} />
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Row({ request, hasUsers, now }: { request: Request; hasUsers: boolean; now: number }) {
  const end = request.finishedAt ? Date.parse(request.finishedAt) : now;
  const start = request.startedAt ? Date.parse(request.startedAt) : null;
  return (
    <tr>
      <td class="cell-state">
        <Badge
          state={request.state}
          label={isPaused(request.waiting) ? "Paused" : stateLabel(request.state)}
        />
      </td>
      <td class="cell-type">
        <Link class="row-link" to={`/requests/${request.id}`}>
          {request.type}
        </Link>
        {request.waiting && <span class="waiting">{shortWaitingText(request.waiting)}</span>}
      </td>
      <td class="cell-jobs">
        <Jobs request={request} />
      </td>
      {hasUsers && <td class="cell-user">{request.user}</td>}
      <td class="cell-created">
        <Ago at={request.createdAt} now={now} />
      </td>
      <td class="cell-took number">{start === null ? "" : durationText(end - start)}</td>
      <td class="cell-id">
        <code>{request.id}</code>
      </td>
    </tr>
  );
}

function Jobs({ request }: { request: Request }) {
  const total = request.totalTasks || request.totalJobs;
  const finished = request.totalTasks ? (request.finishedTasks ?? 0) : request.finishedJobs;
  return (
    <span class="jobs-done">
      {!hasEnded(request.state) && (
        <progress
          class={`state-${stateClass(request.state)}`}
          max={total || 1}
          value={finished}
          aria-label="Complete jobs"
        />
      )}
      {finished === total
        ? countText(total)
        : `${countText(finished)} of ${countText(total)}`}
    </span>
  );
}
