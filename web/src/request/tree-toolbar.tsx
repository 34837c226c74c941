/** What the tree shows: all jobs, the failed or the running ones, and those whose path contains a text. */

import type { Only } from "../model/rows";
import { Choices, type Choice } from "../parts/choices";
import { SearchField } from "../parts/search-field";

interface Props {
  only: Only;
  onOnly: (only: Only) => void;
  text: string;
  onText: (text: string) => void;
  counts: Counts;
  onAll: (isOpen: boolean) => void;
}

export function TreeToolbar({ only, onOnly, text, onText, counts, onAll }: Props) {
  const choices: Choice<Only>[] = [
    ["all", "All", counts.jobs],
    ["failed", "Failed", counts.failed],
    ["running", "Running", counts.running],
  ];
  return (
    <div class="toolbar">
      <h2 id="jobs-title" class="hidden">
        Jobs
      </h2>
      <Choices label="Jobs to show" choices={choices} chosen={only} onChoose={onOnly} />
      <SearchField
        label="Find jobs by their path"
        placeholder="Find host or job"
        text={text}
        onText={onText}
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
