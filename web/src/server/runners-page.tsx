/** The Job Runners that are alive: what they run, and which types of jobs they know. */

import { useEffect } from "preact/hooks";

import { read, type OnError } from "../api/call";
import type { Runner } from "../api/types";
import { countText } from "../model/counts";
import { StackedTable } from "../parts/stacked-table";
import { usePolled } from "../parts/use-polled";
import { COMPLETE, FAIL, stateClass, STOPPED } from "../model/states";
import { Ago, useNow } from "../parts/time";

const COLUMNS = ["State", "Runner", "Requests", "Jobs", "Labels", "Job types", "Version", "Started"];
const NUMBERS = new Set(["Requests", "Jobs"]);

export function RunnersPage({ onError }: { onError: OnError }) {
  const runners = usePolled(() => read<Runner[]>("/api/v1/runners"), onError);
  const now = useNow(true);
  useEffect(() => {
    document.title = "Runners – Spin Cycle";
  }, []);
  if (runners === null) return <p role="status">Loading runners…</p>;
  return (
    <>
      <div class="page-head">
        <h1>Runners</h1>
        <span class="quiet">{countText(runners.length)} alive</span>
      </div>
      {runners.length === 0 ? (
        <p class="notice notice-error">
          No Job Runner is alive, so requests stay pending. Start one with <code>spincycle job-runner</code>.
        </p>
      ) : (
        <StackedTable label="Table of runners" columns={COLUMNS} numbers={NUMBERS}>
          {runners.map((runner) => (
            <Row key={runner.id} runner={runner} now={now} />
          ))}
        </StackedTable>
      )}
    </>
  );
}

function Row({ runner, now }: { runner: Runner; now: number }) {
  const [state, text] = stateOf(runner);
  return (
    <tr>
      <td>
        <span class={`dot state-${stateClass(state)}`}>{text}</span>
      </td>
      <td>
        {runner.url}
        <code class="below">{runner.id}</code>
      </td>
      <td class="number" data-label="Requests">
        {countText(runner.runningRequests, runner.moreRequests)}
      </td>
      <td class="number" data-label="Jobs">
        {runner.silent ? "unknown" : countText(runner.runningJobs)}
      </td>
      <td data-label="Labels">{labelsOf(runner)}</td>
      <td class="cell-types" data-label="Job types">
        {runner.knowsAllJobTypes ? "all" : (runner.jobTypes ?? []).join(", ")}
      </td>
      <td data-label="Version">{runner.version}</td>
      <td data-label="Started">{runner.startedAt && <Ago at={runner.startedAt} now={now} />}</td>
    </tr>
  );
}

function labelsOf(runner: Runner): string {
  return Object.entries(runner.labels ?? {})
    .map(([name, value]) => `${name}=${value}`)
    .join(", ");
}

/** Returns the state whose colour is used, and the words. */
function stateOf(runner: Runner): [number, string] {
  if (runner.silent) return [FAIL, "does not answer"];
  if (runner.draining) return [STOPPED, "drains"];
  if (runner.full) return [STOPPED, "full"];
  return [COMPLETE, "accepts requests"];
}
