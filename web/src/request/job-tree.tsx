/** The jobs of a request by sequence, as a tree table with a bar for each row on a time axis. */

import { useMemo, useRef, useState } from "preact/hooks";

import type { Request } from "../api/types";
import { HEAD_HEIGHT, JobRow, ROW_HEIGHT } from "./job-row";
import { shownState, type RequestModel } from "./request-model";
import { TimeTicks } from "./time-bar";
import { useShownJob } from "./use-shown-job";
import { countOf, TreeToolbar } from "./tree-toolbar";
import { newAxis } from "../model/axis";
import { visibleRows, type Only, type Row } from "../model/rows";
import { hasEnded } from "../model/states";
import { summarize } from "../model/summary";
import { moved } from "../model/tree-keys";
import { showRow, useVirtualRows } from "../parts/virtual-list";

interface Props {
  model: RequestModel;
  request: Request;
  now: number;
  openJob: string;
  only: Only;
  onOnly: (only: Only) => void;
  onOpen: (jobId: string) => void;
}

export function JobTree({ model, request, now, openJob, only, onOnly, onOpen }: Props) {
  const [text, setText] = useState("");
  const [chosen, setChosen] = useState(new Map<string, boolean>());
  const [active, setActive] = useState("");
  const place = useRef<HTMLDivElement>(null);
  const end = hasEnded(request.state) && request.finishedAt ? Date.parse(request.finishedAt) : now;
  // Scrolling and keys draw again too, and a large chain costs 50 ms.
  const summaries = useMemo(
    () => summarize(model.tree, model.record, end, shownState(model, request.state)),
    [model, model.version, end, request.state],
  );
  const rows = useMemo(
    () => visibleRows(model.tree, summaries, chosen, { only, text }),
    [summaries, chosen, only, text],
  );
  const axis = newAxis(Date.parse(request.startedAt ?? request.createdAt), end);
  const slice = useVirtualRows(place, rows.length, ROW_HEIGHT);
  const activeIndex = Math.max(
    0,
    rows.findIndex((row) => row.node.key === active),
  );

  useShownJob(model.tree, openJob, rows, place, (node) => {
    setActive(node.key);
    const around = new Map(chosen);
    for (let at = node.parent; at; at = at.parent) around.set(at.key, true);
    setChosen(around);
  });
  const choose = (row: Row, isOpen: boolean) => setChosen(new Map(chosen).set(row.node.key, isOpen));
  const activate = (row: Row) => {
    setActive(row.node.key);
    if (row.node.job) onOpen(row.node.job.id);
    else choose(row, !row.isOpen);
  };
  const chooseAll = (isOpen: boolean) => {
    const sequences = model.tree.nodes.filter((node) => node.job === null);
    setChosen(new Map(sequences.map((node) => [node.key, isOpen])));
  };
  const onKey = (event: KeyboardEvent) => {
    const row = rows[activeIndex];
    if (!row || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Enter" || event.key === " ") activate(row);
    else {
      const move = moved(
        rows,
        activeIndex,
        event.key,
        Math.floor((place.current?.clientHeight ?? 0) / ROW_HEIGHT),
      );
      if (!move) return;
      if (move.isOpen !== undefined) choose(row, move.isOpen);
      const next = rows[move.index];
      if (next) setActive(next.node.key);
      if (place.current) showRow(place.current, move.index, ROW_HEIGHT, "nearest", HEAD_HEIGHT);
    }
    event.preventDefault();
  };
  const counts = useMemo(() => countOf(model.tree.roots.map((node) => summaries.get(node.key))), [summaries]);

  return (
    <section class="jobs" aria-labelledby="jobs-title">
      <TreeToolbar
        only={only}
        onOnly={onOnly}
        text={text}
        onText={setText}
        counts={counts}
        onAll={chooseAll}
      />
      <div
        class="tree"
        ref={place}
        role="treegrid"
        aria-labelledby="jobs-title"
        aria-rowcount={rows.length + 1}
        aria-activedescendant={rows.length ? `row-${rows[activeIndex]?.node.key}` : undefined}
        tabIndex={0}
        onKeyDown={onKey}
      >
        <div class="tree-head" role="row" aria-rowindex={1}>
          <span role="columnheader">Job</span>
          <span role="columnheader">State</span>
          <span role="columnheader" class="number tree-tries">
            Tries
          </span>
          <span role="columnheader" class="number">
            Time
          </span>
          <span role="columnheader" class="tree-axis">
            <span class="hidden">Time axis</span>
            <TimeTicks axis={axis} />
          </span>
        </div>
        <div class="tree-body" role="rowgroup">
          <div class="tree-space" style={{ height: `${rows.length * ROW_HEIGHT}px` }} role="presentation">
            <div style={{ transform: `translateY(${slice.first * ROW_HEIGHT}px)` }} role="presentation">
              {rows.slice(slice.first, slice.end).map((row, offset) => (
                <JobRow
                  key={row.node.key}
                  row={row}
                  index={slice.first + offset}
                  record={model.record}
                  summary={summaries.get(row.node.key)}
                  axis={axis}
                  now={end}
                  pending={!model.isComplete ? "Loading…" : hasEnded(request.state) ? "Not run" : "Pending"}
                  isActive={slice.first + offset === activeIndex}
                  isSelected={row.node.key === openJob}
                  onActivate={() => activate(row)}
                />
              ))}
            </div>
          </div>
        </div>
      </div>
      {rows.length === 0 && <p class="empty">{model.record.chain ? "No job matches." : "Loading jobs…"}</p>}
    </section>
  );
}
