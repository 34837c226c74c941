/** The server: its version, its health, and for administrators its options without secrets. */

import { useEffect, useState } from "preact/hooks";

import { read, readText, type OnError } from "../api/call";
import type { Configuration } from "../api/types";
import { Choices } from "../parts/choices";
import { SearchField } from "../parts/search-field";
import { Notifications } from "./notifications";
import { usePolled } from "../parts/use-polled";
import { COMPLETE, FAIL, stateClass } from "../model/states";
import { useCaller } from "../parts/caller";

interface Status {
  isReady: boolean;
  /** Why it is not ready. */
  readiness: string;
  apiVersion: string;
  /** Null: the user is not an administrator. */
  configuration: Configuration | null;
}

async function ask(isAdmin: boolean): Promise<Status> {
  const [ready, version] = await Promise.all([readText("/readyz"), readText("/version")]);
  const configuration = isAdmin ? await read<Configuration>("/api/v1/configuration") : null;
  return { isReady: ready.status === 200, readiness: ready.text, apiVersion: version.text, configuration };
}

export function ServerPage({ onError }: { onError: OnError }) {
  const caller = useCaller();
  const isAdmin = caller?.isAdmin ?? false;
  const status = usePolled(() => ask(isAdmin), onError);
  useEffect(() => {
    document.title = "Server – Spin Cycle";
  }, []);
  if (status === null) return <p role="status">Loading…</p>;
  const { configuration } = status;
  return (
    <div class="server">
      <div class="page-head">
        <h1>Server</h1>
      </div>
      <section aria-labelledby="health-title">
        <h2 id="health-title">Health</h2>
        <dl class="health">
          <Check
            name="this server"
            isHealthy={status.isReady}
            message={status.isReady ? "it accepts calls" : status.readiness}
          />
          {configuration?.health.map((check) => (
            <Check key={check.name} name={check.name} isHealthy={check.healthy} message={check.message} />
          ))}
        </dl>
      </section>
      <dl class="facts">
        {configuration && (
          <>
            <div>
              <dt>Version</dt>
              <dd>{configuration.version}</dd>
            </div>
            <div>
              <dt>Database</dt>
              <dd>{configuration.database}</dd>
            </div>
          </>
        )}
        <div>
          <dt>API version</dt>
          <dd>{status.apiVersion}</dd>
        </div>
      </dl>
      {isAdmin && <Notifications onError={onError} />}
      {configuration ? (
        <Options options={configuration.options} />
      ) : (
        <p class="notice">Only administrators see the options of the server and the health of its parts.</p>
      )}
    </div>
  );
}

function Check({ name, isHealthy, message }: { name: string; isHealthy: boolean; message: string }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>
        <span class={`dot state-${stateClass(isHealthy ? COMPLETE : FAIL)}`}>
          {isHealthy ? "works" : "does not work"}
        </span>
        <span class="quiet">{message}</span>
      </dd>
    </div>
  );
}

function Options({ options }: { options: Configuration["options"] }) {
  const [text, setText] = useState("");
  const [showsAll, setShowsAll] = useState(false);
  const wanted = text.trim().toLowerCase();
  const isChanged = (source: string) => source !== "default";
  const shown = options.filter(({ name, source }) =>
    wanted ? name.toLowerCase().includes(wanted) : showsAll || isChanged(source),
  );
  const changed = options.filter(({ source }) => isChanged(source)).length;
  return (
    <section aria-labelledby="options-title">
      <div class="toolbar">
        <h2 id="options-title">Options</h2>
        <Choices
          label="Options to show"
          choices={[
            [false, "Changed", changed],
            [true, "All", options.length],
          ]}
          chosen={showsAll}
          onChoose={setShowsAll}
        />
        <SearchField label="Find an option" text={text} onText={setText} />
      </div>
      <div class="table-place" tabIndex={0} role="region" aria-label="Table of options">
        <table class="options">
          <thead>
            <tr>
              <th scope="col">Option</th>
              <th scope="col">Value</th>
              <th scope="col">From</th>
            </tr>
          </thead>
          <tbody>
            {shown.map(({ name, value, source }) => (
              <tr key={name}>
                <td>{name}</td>
                <td class="cell-value">
                  {value ? <code>{value}</code> : <span class="quiet">not set</span>}
                </td>
                <td class="quiet">{source}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {shown.length === 0 && <p class="empty">No option matches.</p>}
    </section>
  );
}
