/** The choice between the system's theme, light and dark. */

import { useState } from "preact/hooks";

import { keep } from "./kept";

type Theme = "" | "light" | "dark";

const KEY = "spincycle-theme"; // theme.js reads it too.
const NAMES: Record<Theme, string> = { "": "System theme", light: "Light theme", dark: "Dark theme" };
const NEXT: Record<Theme, Theme> = { "": "dark", dark: "light", light: "" };

function current(): Theme {
  const theme = document.documentElement.dataset.theme;
  return theme === "light" || theme === "dark" ? theme : "";
}

export function ThemeButton() {
  const [theme, setTheme] = useState(current);
  const change = () => {
    const next = NEXT[theme];
    if (next) document.documentElement.dataset.theme = next;
    else delete document.documentElement.dataset.theme;
    keep(KEY, next);
    setTheme(next);
    dispatchEvent(new Event(KEY));
  };
  return (
    <button
      class="icon-button"
      onClick={change}
      title={NAMES[theme]}
      aria-label={`${NAMES[theme]}. Change it`}
    >
      <svg viewBox="0 0 16 16" width="16" height="16" class="sign" aria-hidden="true">
        <circle cx="8" cy="8" r="5.5" />
        {theme === "" && <path d="M8 2.5v11" />}
        {theme === "dark" && <path d="M10 4.5a4 4 0 1 0 0 7" />}
        {theme === "light" && <path d="M8 6v4M6 8h4" />}
      </svg>
    </button>
  );
}
