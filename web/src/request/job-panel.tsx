/** One job: its tries, why it failed, and the output of a try. */

import { useEffect, useRef, useState } from "preact/hooks";

import type { Request } from "../api/types";
import { Output } from "./output";
import type { RequestModel } from "./request-model";
import { TryFacts, TryList } from "./tries";
import { pathOf } from "../model/chain";
import type { Fragment } from "../model/fragment";
import { hasEnded } from "../model/states";

interface Props {
  model: RequestModel;
  request: Request;
  fragment: Fragment;
  now: number;
  onChange: (change: Partial<Fragment>, replaces?: boolean) => void;
}

export function JobPanel({ model, request, fragment, now, onChange }: Props) {
  const { record } = model;
  const jobId = fragment.job;
  const tries = record.tries.get(jobId) ?? [];
  const running = record.running.get(jobId);
  const newest = Math.max(running?.try ?? 0, tries.at(-1)?.try ?? 0);
  const number = fragment.try || newest;
  const path = record.chain ? pathOf(record.chain, jobId) : [];
  const panel = useRef<HTMLElement>(null);
  const close = () => {
    const hadFocus = panel.current?.contains(document.activeElement);
    onChange({ job: "", try: 0, line: null });
    if (hadFocus)
      requestAnimationFrame(() => document.querySelector<HTMLElement>("[role=treegrid]")?.focus());
  };
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      if (event.key === "Escape" && !document.querySelector("dialog[open]")) close();
    };
    addEventListener("keydown", onKey);
    // The page below cannot be used then.
    if (panel.current && document.querySelector(".request-main[inert]")) panel.current.focus();
    return () => removeEventListener("keydown", onKey);
  }, []);
  if (record.chain && path.length === 0) {
    return (
      <aside class="panel" aria-label="Job" ref={panel} tabIndex={-1}>
        <PanelHead path={[]} title={`Job ${jobId}`} onClose={close} />
        <p class="empty">This request has no such job.</p>
      </aside>
    );
  }
  return (
    <aside class="panel" aria-label="Job" ref={panel} tabIndex={-1}>
      <PanelHead path={path.slice(0, -1)} title={path.at(-1) ?? jobId} onClose={close} />
      <TryList
        tries={tries}
        running={running}
        number={number}
        onChoose={(chosen) => onChange({ try: chosen, line: null }, true)}
      />
      <TryFacts
        request={request}
        job={record.chain?.jobs[jobId]}
        entry={tries.find((entry) => entry.try === number)}
        running={running?.try === number ? running : undefined}
        isKnown={model.isComplete}
        now={now}
      />
      {number > 0 ? (
        <Output
          key={`${jobId} ${number}`}
          path={`${model.path}/log/${encodeURIComponent(jobId)}/output?try=${number}`}
          probe={`${model.path}?view=BASIC`}
          line={fragment.line}
          onLine={(line) => onChange({ try: number, line }, true)}
        />
      ) : model.isComplete ? (
        <p class="empty">
          {hasEnded(request.state) ? "This job has not run." : "This job has not started yet."}
        </p>
      ) : (
        <p class="empty" role="status">
          Loading…
        </p>
      )}
    </aside>
  );
}

function PanelHead({ path, title, onClose }: { path: string[]; title: string; onClose: () => void }) {
  return (
    <div class="panel-head">
      <div class="panel-title">
        {path.length > 0 && <p class="quiet panel-path">{path.join(" / ")}</p>}
        <h2>{title}</h2>
      </div>
      <CopyLink />
      <button class="icon-button" aria-label="Close job" title="Close (Esc)" onClick={onClose}>
        <svg viewBox="0 0 16 16" width="16" height="16" aria-hidden="true" class="sign">
          <path d="M4 4l8 8M12 4l-8 8" />
        </svg>
      </button>
    </div>
  );
}

/** Browsers offer the clipboard only over https and on the same machine. The address is the link anyway. */
function CopyLink() {
  const [isCopied, setCopied] = useState(false);
  if (!navigator.clipboard) return null;
  const copy = () => {
    navigator.clipboard.writeText(location.href).then(
      () => setCopied(true),
      () => setCopied(false),
    );
  };
  return (
    <button class="quiet-button" onClick={copy} onBlur={() => setCopied(false)}>
      {isCopied ? "Copied" : "Copy link"}
    </button>
  );
}
