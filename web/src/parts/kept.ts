/** Choices that this browser keeps. */

import { useState } from "preact/hooks";

/** Returns a choice and how to change it. Without storage it lasts until the page is loaded again. */
export function useKept(key: string, byDefault: boolean): [boolean, (value: boolean) => void] {
  const [value, setValue] = useState(() => read(key) ?? byDefault);
  const change = (next: boolean) => {
    setValue(next);
    keep(key, next ? "on" : "off");
  };
  return [value, change];
}

/** Keeps a text, unless the browser keeps nothing. */
export function keep(key: string, text: string): void {
  try {
    localStorage.setItem(key, text);
  } catch {
    // It then lasts until the page is loaded again.
  }
}

function read(key: string): boolean | null {
  try {
    const kept = localStorage.getItem(key);
    return kept === "on" ? true : kept === "off" ? false : null;
  } catch {
    return null;
  }
}
