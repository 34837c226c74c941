/** The Job Runners that are alive. */

import { useEffect, useState } from "preact/hooks";

import { ApiError, call } from "../api/call";
import type { Runner } from "../api/types";

const PAUSE = 5000; // Milliseconds between two looks.

export function Runners({ onError }: { onError: (error: ApiError) => void }) {
  const [runners, setRunners] = useState<Runner[] | null>(null);
  useEffect(() => {
    let timer = 0;
    let hasEnded = false;
    const look = () =>
      call<Runner[]>("/api/v1/runners")
        .then(({ body }) => hasEnded || setRunners(body), (error: ApiError) => hasEnded || onError(error))
        .finally(() => {
          if (!hasEnded) timer = setTimeout(look, PAUSE);
        });
    void look();
    return () => {
      hasEnded = true;
      clearTimeout(timer);
    };
  }, []);
  if (runners === null) return <p role="status">Loading...</p>;
  return (
    <>
      <h1>Runners</h1>
      <table>
        <thead>
          <tr>
            {["Runner", "URL", "Version", "Started", "Requests", "Jobs", "Labels", "State"].map((text) => (
              <th key={text}>{text}</th>
            ))}
          </tr>
        </thead>
        <tbody>
          {runners.map((runner) => (
            <tr key={runner.id}>
              <td>{runner.id}</td>
              <td>{runner.url}</td>
              <td>{runner.version}</td>
              <td>{runner.startedAt && new Date(runner.startedAt).toLocaleString()}</td>
              <td>
                {runner.runningRequests}
                {runner.moreRequests ? "+" : ""}
              </td>
              <td>{runner.silent ? "?" : runner.runningJobs}</td>
              <td>{labelsOf(runner)}</td>
              <td>{stateOf(runner)}</td>
            </tr>
          ))}
        </tbody>
      </table>
      {runners.length === 0 && <p>No Job Runner is alive.</p>}
    </>
  );
}

function labelsOf(runner: Runner): string {
  return Object.entries(runner.labels ?? {})
    .map(([name, value]) => `${name}=${value}`)
    .join(", ");
}

function stateOf(runner: Runner): string {
  const states = [runner.draining && "drains", runner.full && "full", runner.silent && "does not answer"];
  return states.filter(Boolean).join(", ") || "ok";
}
