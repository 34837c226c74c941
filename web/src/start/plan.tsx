/** What a request would become: its args and its jobs, before anything runs. */

import { useEffect, useMemo, useRef, useState } from "preact/hooks";

import type { Request } from "../api/types";
import { countOf } from "../model/counts";
import { JobRecord } from "../model/job-record";
import { visibleRows } from "../model/rows";
import { summarize } from "../model/summary";
import { buildTree, EMPTY_TREE } from "../model/tree";
import { useVirtualRows } from "../parts/virtual-list";
import { Args } from "../request/args";
import { FINALLY } from "../request/job-row";

interface Props {
  request: Request;
  isBusy: boolean;
  onStart: () => void;
}

const ROW_HEIGHT = 28; // Pixels, as in the style.
const SMALL = 40; // A plan with fewer rows is open.

export function Plan({ request, isBusy, onStart }: Props) {
  const [chosen, setChosen] = useState(new Map<string, boolean>());
  const place = useRef<HTMLDivElement>(null);
  const section = useRef<HTMLElement>(null);
  const chain = request.JobChain;
  useEffect(() => section.current?.scrollIntoView({ block: "nearest" }), [chain]);
  const tree = useMemo(() => (chain ? buildTree(chain) : EMPTY_TREE), [chain]);
  const summaries = useMemo(() => {
    const record = new JobRecord();
    record.chain = chain ?? null;
    return summarize(tree, record, 0);
  }, [tree]);
  const rows = useMemo(() => {
    const sequences = tree.nodes.filter((node) => node.job === null);
    const open = new Map(sequences.map((node) => [node.key, tree.nodes.length < SMALL]));
    return visibleRows(tree, summaries, new Map([...open, ...chosen]), { only: "all", text: "" });
  }, [tree, chosen]);
  const slice = useVirtualRows(place, rows.length, ROW_HEIGHT);
  const jobs = tree.nodes.filter((node) => node.job).length;
  return (
    <section class="plan" ref={section} aria-labelledby="plan-title">
      <h2 id="plan-title">
        Plan: {countOf(jobs, "job")}
      </h2>
      <div class="form-buttons">
        <button class="primary" disabled={isBusy} onClick={onStart}>
          {isBusy ? "Starting…" : "Start"}
        </button>
        <span class="quiet">The jobs run as soon as a Job Runner has room.</span>
      </div>
      <Args args={request.args ?? []} />
      <div class="plan-rows" ref={place} tabIndex={0} role="region" aria-label="Jobs of the plan">
        <div style={{ height: `${rows.length * ROW_HEIGHT}px` }}>
          <ul style={{ transform: `translateY(${slice.first * ROW_HEIGHT}px)` }}>
            {rows.slice(slice.first, slice.end).map(({ node, isOpen }) => (
              <li key={node.key} style={{ paddingLeft: `${(Math.min(node.level, 8) - 1) * 18}px` }}>
                {node.job ? (
                  <>
                    <span class="twig" />
                    {node.label} <span class="quiet">{node.job.type}</span>
                  </>
                ) : (
                  <button
                    class="plan-sequence"
                    aria-expanded={isOpen}
                    onClick={() => setChosen(new Map(chosen).set(node.key, !isOpen))}
                  >
                    <span class={isOpen ? "twig twig-open" : "twig twig-closed"} aria-hidden="true" />
                    <span
                      class={node.isFinally ? "final-mark" : ""}
                      title={node.isFinally ? FINALLY : undefined}
                    >
                      {node.label}
                    </span>{" "}
                    <span class="quiet">
                      {summaries.get(node.key)?.jobs}
                      {node.limits && `, ${node.limits}`}
                    </span>
                  </button>
                )}
              </li>
            ))}
          </ul>
        </div>
      </div>
    </section>
  );
}
