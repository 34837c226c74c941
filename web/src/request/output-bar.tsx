/** What is above the output: which stream is shown, the search, and whether the output is complete. */

import type { StreamName } from "../api/types";
import { countText } from "../model/counts";
import { Choices, type Choice } from "../parts/choices";
import { SearchField } from "../parts/search-field";

export type Shown = "all" | StreamName;

const STREAMS: Choice<Shown>[] = [
  ["all", "All"],
  ["stdout", "stdout"],
  ["stderr", "stderr"],
];

interface BarProps {
  shown: Shown;
  onShown: (shown: Shown) => void;
  text: string;
  onText: (text: string) => void;
  found: number;
  foundAt: number;
  onGo: (index: number) => void;
  wraps: boolean;
  onWraps: (wraps: boolean) => void;
  status: string;
}

export function OutputBar(props: BarProps) {
  const { shown, onShown, text, onText, found, foundAt, onGo, wraps, onWraps, status } = props;
  const onKey = (event: KeyboardEvent) => {
    if (event.key === "Enter") onGo(foundAt + (event.shiftKey ? -1 : 1));
  };
  return (
    <div class="output-bar">
      <Choices label="Streams to show" choices={STREAMS} chosen={shown} onChoose={onShown} />
      <button class="output-wrap" aria-pressed={wraps} onClick={() => onWraps(!wraps)}>
        Wrap
      </button>
      <SearchField
        label="Search in the output"
        placeholder="Search"
        text={text}
        onText={onText}
        onKeyDown={onKey}
      />
      {text && (
        <span class="found" role="status">
          {found ? `${Math.min(foundAt, found - 1) + 1} of ${countText(found)}` : "No match"}
        </span>
      )}
      {text && found > 0 && (
        <span class="found-buttons">
          <button class="quiet-button" aria-label="Previous match" onClick={() => onGo(foundAt - 1)}>
            ↑
          </button>
          <button class="quiet-button" aria-label="Next match" onClick={() => onGo(foundAt + 1)}>
            ↓
          </button>
        </span>
      )}
      <span class="output-status" role="status">
        {status}
      </span>
    </div>
  );
}
