/** What the tree shows: all jobs, the failed or the running ones, and those whose path contains a text. */

import type { Only } from "../model/rows";

interface Props {
  only: Only;
  onOnly: (only: Only) => void;
  text: string;
  onText: (text: string) => void;
  counts: Counts;
  onAll: (isOpen: boolean) => void;
}

export function TreeToolbar({ only, onOnly, text, onText, counts, onAll }: Props) {
  const choices: [Only, string, number][] = [
    ["all", "All", counts.jobs],
    ["failed", "Failed", counts.failed],
    ["running", "Running", counts.running],
  ];
  return (
    <div class="toolbar">
      <h2 id="jobs-title" class="hidden">
        Jobs
      </h2>
      <div class="choices" role="group" aria-label="Jobs to show">
        {choices.map(([name, label, count]) => (
          <button key={name} aria-pressed={only === name} onClick={() => onOnly(name)}>
            {label} <span class="count">{count.toLocaleString("en")}</span>
          </button>
        ))}
      </div>
      <input
        type="search"
        aria-label="Find jobs by their path"
        placeholder="Find host or job"
        value={text}
        onInput={(event) => onText(event.currentTarget.value)}
      />
      <span class="toolbar-end">
        <button class="quiet-button" onClick={() => onAll(true)}>
          Open all
        </button>
        <button class="quiet-button" onClick={() => onAll(false)}>
          Close all
        </button>
      </span>
    </div>
  );
}

export interface Counts {
  jobs: number;
  failed: number;
  running: number;
}

export function countOf(parts: ({ jobs: number; failed: number; running: number } | undefined)[]): Counts {
  const counts = { jobs: 0, failed: 0, running: 0 };
  for (const part of parts) {
    counts.jobs += part?.jobs ?? 0;
    counts.failed += part?.failed ?? 0;
    counts.running += part?.running ?? 0;
  }
  return counts;
}
