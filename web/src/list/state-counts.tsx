/** How many requests are in each state. A click shows only these. */

import type { ComponentChildren } from "preact";

import type { StateCount } from "../api/types";
import { countText } from "../model/counts";
import { STATE_NAMES, stateLabel } from "../model/states";
import { StateSign } from "../parts/badge";

interface Props {
  counts: StateCount[];
  /** The name of the chosen state. Empty: all. */
  state: string;
  onChoose: (state: string) => void;
  /** What comes after the counts. */
  children?: ComponentChildren;
}

export function StateCounts({ counts, state: chosen, onChoose, children }: Props) {
  const all = counts.reduce((sum, { count }) => sum + count, 0);
  const hasMore = counts.some(({ more }) => more);
  return (
    <div class="counts" role="group" aria-label="Requests by state">
      <button aria-pressed={chosen === ""} onClick={() => onChoose("")}>
        All <span class="count">{countText(all, hasMore)}</span>
      </button>
      {counts.map(({ state, count, more }) => (
        <button
          key={state}
          aria-pressed={chosen === STATE_NAMES[state]}
          onClick={() => onChoose(STATE_NAMES[state] ?? "")}
        >
          <StateSign state={state} />
          {stateLabel(state)} <span class="count">{countText(count, more)}</span>
        </button>
      ))}
      {children}
    </div>
  );
}
