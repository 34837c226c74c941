/** Tabs, of which one is shown. Arrow keys move between them. */

import type { ComponentChildren } from "preact";

interface Props<Name extends string> {
  label: string;
  tabs: readonly (readonly [Name, string])[];
  chosen: Name;
  onChoose: (name: Name) => void;
  children: ComponentChildren;
}

export function Tabs<Name extends string>({ label, tabs, chosen, onChoose, children }: Props<Name>) {
  const onKey = (event: KeyboardEvent & { currentTarget: HTMLElement }) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const index = tabs.findIndex(([name]) => name === chosen);
    const next = (index + step + tabs.length) % tabs.length;
    event.preventDefault();
    event.currentTarget.querySelectorAll<HTMLElement>("[role=tab]")[next]?.focus();
    const tab = tabs[next];
    if (tab) onChoose(tab[0]);
  };
  return (
    <div class="tab-place">
      <div class="tabs" role="tablist" aria-label={label} onKeyDown={onKey}>
        {tabs.map(([name, text]) => (
          <button
            key={name}
            id={`tab-${name}`}
            role="tab"
            aria-selected={name === chosen}
            aria-controls={name === chosen ? `tabpanel-${name}` : undefined}
            tabIndex={name === chosen ? 0 : -1}
            onClick={() => onChoose(name)}
          >
            {text}
          </button>
        ))}
      </div>
      <div id={`tabpanel-${chosen}`} role="tabpanel" aria-labelledby={`tab-${chosen}`}>
        {children}
      </div>
    </div>
  );
}
