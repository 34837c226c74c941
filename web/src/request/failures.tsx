/** The failed jobs, at the top of the page without a click: which host, which error, and what to do. */

import { useEffect, useState } from "preact/hooks";

import { call } from "../api/call";
import type { JobLog, Request } from "../api/types";
import { countOf, countText } from "../model/counts";
import type { RequestModel } from "./request-model";
import { FAIL, hasEnded } from "../model/states";
import { clockText, durationText, toMilliseconds } from "../model/times";
import { lastLines, lineSpans } from "../model/last-lines";
import { classesOf } from "../model/ansi";
import { StateSign } from "../parts/badge";
import { may, useCaller } from "../parts/caller";
import { mayDo, RetryDialog } from "./actions";

const MOST_SHOWN = 3;
const ERROR_LINES = 4;
const OUTPUT_LINES = 6;

interface Props {
  model: RequestModel;
  request: Request;
  onOpen: (jobId: string, number: number) => void;
  onShowFailed: () => void;
}

export function Failures({ model, request, onOpen, onShowFailed }: Props) {
  const caller = useCaller();
  const failed = model.record.failed().filter((entry) => !model.record.running.has(entry.jobId));
  if (failed.length === 0) {
    if (request.state !== FAIL || !model.isComplete) return null;
    return (
      <p class="notice notice-error">
        {may(caller, request.type, "log")
          ? "No job has failed. The request took longer than its timeout, or was suspended for too long."
          : "You may not read the job log of this request, so the page cannot say which job failed."}
      </p>
    );
  }
  const more = failed.length - MOST_SHOWN;
  return (
    <section class="failures" aria-labelledby="failures-title">
      <h2 id="failures-title">
        {countOf(failed.length, "job has", "jobs have")} failed
        {hasEnded(request.state) ? "" : " so far"}
      </h2>
      {failed.slice(0, MOST_SHOWN).map((entry) => (
        <Failure
          key={`${entry.jobId} ${entry.try}`}
          entry={entry}
          model={model}
          request={request}
          onOpen={onOpen}
        />
      ))}
      {more > 0 && (
        <button class="link" onClick={onShowFailed}>
          Show all {countText(failed.length)} failed jobs in the table
        </button>
      )}
    </section>
  );
}

function Failure({
  entry,
  model,
  request,
  onOpen,
}: { entry: JobLog } & Pick<Props, "model" | "request" | "onOpen">) {
  const caller = useCaller();
  const [output, setOutput] = useState<JobLog | null>(null);
  const [isAsked, ask] = useState(false);
  useEffect(() => {
    let isOver = false;
    // The stream sends tries without their output.
    call<JobLog>(`${model.path}/log/${entry.jobId}`).then(
      ({ body }) => isOver || setOutput(body),
      () => undefined, // The try is shown without its output, which the button below explains.
    );
    return () => {
      isOver = true;
    };
  }, [entry.jobId, entry.try]);
  const path = (entry.path ?? [entry.name]).slice(entry.path ? 1 : 0);
  const name = path.join(" / ");
  const isOver = hasEnded(request.state) && !request.retriedBy;
  return (
    <article class="failure">
      <h3>
        <StateSign state={FAIL} />
        {path.map((part, index) => (
          <span key={index} class={index === path.length - 1 ? "" : "path-part"}>
            {part}
          </span>
        ))}
      </h3>
      <p class="quiet">
        try {entry.try}
        {entry.exit ? `, exit code ${entry.exit}` : ""}
        {entry.startedAt ? `, after ${durationText(toMilliseconds(entry.finishedAt - entry.startedAt))}` : ""}
        , at {clockText(toMilliseconds(entry.finishedAt))}, job <code>{entry.jobId}</code>
      </p>
      {entry.error && <Excerpt name="error" text={entry.error} most={ERROR_LINES} />}
      {output?.stderr && <Excerpt name="stderr" text={output.stderr} most={OUTPUT_LINES} />}
      {output && !output.stderr && output.stdout && (
        <Excerpt name="stdout" text={output.stdout} most={OUTPUT_LINES} />
      )}
      <div class="failure-buttons">
        <button onClick={() => onOpen(entry.jobId, entry.try)}>Show output</button>
        {isOver && mayDo(caller, request.type, "retry") && (
          <button onClick={() => ask(true)}>Retry from here</button>
        )}
      </div>
      {isAsked && (
        <RetryDialog request={request} from={{ id: entry.jobId, path: name }} onClose={() => ask(false)} />
      )}
    </article>
  );
}

function Excerpt({ name, text, most }: { name: string; text: string; most: number }) {
  const { lines, left } = lastLines(text, most);
  return (
    <div class="excerpt">
      <span class="excerpt-name">
        {name}
        {left > 0 && <span class="quiet"> last {lines.length} lines</span>}
      </span>
      <pre>
        {lines.map((line, index) => (
          <span key={index} class="excerpt-line">
            {lineSpans(line).map((span, place) => (
              <span key={place} class={classesOf(span.style)}>
                {span.text}
              </span>
            ))}
          </span>
        ))}
      </pre>
    </div>
  );
}
