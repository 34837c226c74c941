/** The tries of a job, and what is known about one of them. */

import { useState } from "preact/hooks";

import type { Job, JobLog, JobStatus, Request } from "../api/types";
import { mayDo, RetryDialog } from "./actions";
import { valueText } from "../model/arg-values";
import { COMPLETE, hasEnded, PENDING, RUNNING, stateLabel } from "../model/states";
import { retryText } from "../model/retries";
import { durationText, timeText, toMilliseconds } from "../model/times";
import { Badge, StateSign } from "../parts/badge";
import { useCaller } from "../parts/caller";

interface TryListProps {
  tries: JobLog[];
  running: JobStatus | undefined;
  number: number;
  onChoose: (number: number) => void;
}

const MOST_TRIES = 50;

export function TryList({ tries, running, number, onChoose }: TryListProps) {
  const all = tries.map((entry) => ({ number: entry.try, state: entry.state }));
  if (running && !all.some((entry) => entry.number === running.try))
    all.push({ number: running.try, state: RUNNING });
  if (all.length < 2) return null;
  return (
    <div class="tries" role="group" aria-label="Tries">
      <span class="quiet">Try</span>
      {all.slice(-MOST_TRIES).map((entry) => (
        <button
          key={entry.number}
          aria-pressed={entry.number === number}
          title={stateLabel(entry.state)}
          onClick={() => onChoose(entry.number)}
        >
          <StateSign state={entry.state} />
          {entry.number}
          <span class="hidden"> {stateLabel(entry.state)}</span>
        </button>
      ))}
    </div>
  );
}

interface FactsProps {
  request: Request;
  job: Job | undefined;
  entry: JobLog | undefined;
  running: JobStatus | undefined;
  /** All tries so far have arrived, so a job without one has not started. */
  isKnown: boolean;
  now: number;
}

export function TryFacts({ request, job, entry, running, isKnown, now }: FactsProps) {
  const caller = useCaller();
  const [isAsked, ask] = useState(false);
  const start = entry?.startedAt || running?.startedAt;
  const end = entry ? toMilliseconds(entry.finishedAt) : now;
  const isRetryable = hasEnded(request.state) && request.state !== COMPLETE && !request.retriedBy;
  return (
    <div class="try-facts">
      <p>
        {(entry || running || isKnown) && (
          <Badge state={entry?.state ?? (running ? RUNNING : PENDING)} />
        )}
        {entry && entry.exit !== 0 && <span>exit code {entry.exit}</span>}
        {start && <span>{durationText(end - toMilliseconds(start))}</span>}
        {start && <span class="quiet">{timeText(toMilliseconds(start))}</span>}
        {job && (
          <span class="quiet">
            {job.type}, <code>{job.id}</code>
          </span>
        )}
        {job && isRetryable && mayDo(caller, request.type, "retry") && (
          <button class="quiet-button" onClick={() => ask(true)}>
            Retry from here
          </button>
        )}
      </p>
      {job && retryText(job) && <p class="quiet">{retryText(job)}</p>}
      {running?.status && <p class="quiet">{running.status}</p>}
      {entry?.error && <p class="try-error">{entry.error}</p>}
      {job?.args && Object.keys(job.args).length > 0 && (
        <details>
          <summary>Args of the job</summary>
          <dl class="arg-list">
            {Object.entries(job.args).map(([name, value]) => (
              <div key={name}>
                <dt>{name}</dt>
                <dd>{valueText(value)}</dd>
              </div>
            ))}
          </dl>
        </details>
      )}
      {isAsked && job && (
        <RetryDialog request={request} from={{ id: job.id, path: job.name }} onClose={() => ask(false)} />
      )}
    </div>
  );
}
