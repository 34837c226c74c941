/** The graph of a request's jobs, in a script of its own that is loaded when the tab is first opened. */

import { useMemo } from "preact/hooks";

import { shownState, type RequestModel } from "./request-model";
import { lazy } from "../parts/lazy";

const Graph = lazy(() => import("../graph").then((module) => module.Graph));

interface Props {
  model: RequestModel;
  requestState: number;
  onOpen: (jobId: string) => void;
}

export function GraphView({ model, requestState, onOpen }: Props) {
  const { record } = model;
  const states = useMemo(
    () => new Map([...record.states()].map(([jobId, now]) => [jobId, now.state])),
    [model, model.version],
  );
  if (!record.chain) return <p role="status">Loading jobs…</p>;
  return <Graph chain={record.chain} states={states} requestState={shownState(model, requestState)} onJob={onOpen} />;
}
