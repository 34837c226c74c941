/** The page of one request. */

import { useEffect, useRef, useState } from "preact/hooks";

import type { OnError } from "../api/call";
import { go, type Address } from "../parts/address";
import { Approvals } from "./approvals";
import { Args } from "./args";
import { Failures } from "./failures";
import { GraphView } from "./graph-view";
import { JobPanel } from "./job-panel";
import { JobTree } from "./job-tree";
import { RequestLimits } from "./limits";
import { RequestHead } from "./request-head";
import { RequestModel } from "./request-model";
import { useMedia } from "../parts/media";
import { Tabs } from "../parts/tabs";
import { useNow } from "../parts/time";
import { readFragment, writeFragment, type Fragment } from "../model/fragment";
import type { Only } from "../model/rows";
import { hasEnded, stateLabel } from "../model/states";

const TABS = [
  ["jobs", "Jobs"],
  ["graph", "Graph"],
] as const;

interface Props {
  id: string;
  address: Address;
  onError: OnError;
}

/** Returns the model of a request, and draws again when it has changed. */
function useRequestModel(id: string): RequestModel | null {
  const [, draw] = useState(0);
  const model = useRef<RequestModel | null>(null);
  useEffect(() => {
    const opened = new RequestModel(id, () => draw((count) => count + 1));
    model.current = opened;
    draw((count) => count + 1);
    return () => opened.close();
  }, [id]);
  return model.current?.id === id ? model.current : null;
}

export function RequestPage({ id, address, onError }: Props) {
  const model = useRequestModel(id);
  const request = model?.request ?? null;
  const now = useNow(request !== null && !hasEnded(request.state));
  const [only, setOnly] = useState<Only>("all");
  const isNarrow = useMedia("(max-width: 1099px)"); // The panel of a job then covers the page.
  const fragment = readFragment(address.hash);
  const open = (change: Partial<Fragment>, replaces = false) => {
    const next = { ...readFragment(location.hash), ...change };
    go(location.pathname + location.search + writeFragment(next), replaces);
  };
  const openJob = (job: string, number = 0) => open({ job, try: number, line: null });
  const showFailed = () => {
    setOnly("failed");
    open({ view: "jobs" }, true);
    document.getElementById("tab-jobs")?.scrollIntoView({ block: "start" });
  };

  const needsSignIn = model?.error?.needsSignIn ?? false;
  useEffect(() => {
    if (needsSignIn && model) onError(model.error);
  }, [needsSignIn]);
  useEffect(() => {
    if (request) document.title = `${stateLabel(request.state)}: ${request.type} – Spin Cycle`;
  }, [request?.state, request?.type]);

  if (!model || !request) {
    return (
      <>
        <div class="page-head">
          <h1>Request {id}</h1>
        </div>
        {model?.error ? (
          <p class="notice notice-error" role="alert">
            {model.error.message}
          </p>
        ) : (
          <p role="status">Loading…</p>
        )}
      </>
    );
  }
  return (
    <div class={fragment.job ? "request has-panel" : "request"}>
      <div class="request-main" inert={fragment.job !== "" && isNarrow}>
        <RequestHead model={model} request={request} now={now} />
        <Approvals request={request} now={now} onDone={() => void model.refresh()} />
        <RequestLimits chain={model.record.chain} request={request} now={now} onError={onError} />
        <Failures model={model} request={request} onOpen={openJob} onShowFailed={showFailed} />
        <Args args={request.args ?? []} />
        <Tabs
          label="Views of the jobs"
          tabs={TABS}
          chosen={fragment.view}
          onChoose={(view) => open({ view }, true)}
        >
          {fragment.view === "graph" ? (
            <GraphView model={model} requestState={request.state} onOpen={openJob} />
          ) : (
            <JobTree
              model={model}
              request={request}
              now={now}
              openJob={fragment.job}
              only={only}
              onOnly={setOnly}
              onOpen={openJob}
            />
          )}
        </Tabs>
      </div>
      {fragment.job && (
        <JobPanel
          key={fragment.job}
          model={model}
          request={request}
          fragment={fragment}
          now={now}
          onChange={open}
        />
      )}
    </div>
  );
}
