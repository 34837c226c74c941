/** What is above the output: which stream is shown, the search, and whether the output is complete. */

import type { StreamName } from "../api/types";

export type Shown = "all" | StreamName;

interface BarProps {
  shown: Shown;
  onShown: (shown: Shown) => void;
  text: string;
  onText: (text: string) => void;
  found: number;
  foundAt: number;
  onGo: (index: number) => void;
  status: string;
}

export function OutputBar({ shown, onShown, text, onText, found, foundAt, onGo, status }: BarProps) {
  const onKey = (event: KeyboardEvent) => {
    if (event.key === "Enter") onGo(foundAt + (event.shiftKey ? -1 : 1));
  };
  return (
    <div class="output-bar">
      <div class="choices" role="group" aria-label="Streams to show">
        {(["all", "stdout", "stderr"] as const).map((name) => (
          <button key={name} aria-pressed={shown === name} onClick={() => onShown(name)}>
            {name === "all" ? "All" : name}
          </button>
        ))}
      </div>
      <input
        type="search"
        aria-label="Search in the output"
        placeholder="Search"
        value={text}
        onInput={(event) => onText(event.currentTarget.value)}
        onKeyDown={onKey}
      />
      {text && (
        <span class="found" role="status">
          {found ? `${Math.min(foundAt, found - 1) + 1} of ${found.toLocaleString("en")}` : "No match"}
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
