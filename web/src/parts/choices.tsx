/** Buttons of which one is chosen. */

import { countText } from "../model/counts";

/** A choice: its name, its label, and how many entries it would show, if that is known. */
export type Choice<Name> = readonly [name: Name, label: string, count?: string | number];

interface Props<Name> {
  label: string;
  choices: readonly Choice<Name>[];
  chosen: Name;
  onChoose: (name: Name) => void;
}

export function Choices<Name extends string | boolean>({ label, choices, chosen, onChoose }: Props<Name>) {
  return (
    <div class="choices" role="group" aria-label={label}>
      {choices.map(([name, text, count]) => (
        <button key={String(name)} aria-pressed={chosen === name} onClick={() => onChoose(name)}>
          {text}
          {count !== undefined && " "}
          {count !== undefined && (
            <span class="count">{typeof count === "number" ? countText(count) : count}</span>
          )}
        </button>
      ))}
    </div>
  );
}
