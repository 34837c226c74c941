/** The colours of the page's theme, as a canvas needs them. */

import { stateClass } from "../model/states.ts";

export interface Palette {
  text: string;
  quiet: string;
  line: string;
  ground: string;
  raised: string;
  accent: string;
  chosen: string;
  edge: string;
  font: string;
  /** The colours of states by number. */
  states: string[];
}

/** Reads the colours that hold at an element. A canvas knows no variables, so an element resolves them. */
export function readPalette(near: HTMLElement): Palette {
  const probe = document.createElement("span");
  near.append(probe);
  const color = (name: string) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  };
  const palette = {
    text: color("text"),
    quiet: color("quiet"),
    line: color("line"),
    ground: color("ground"),
    raised: color("raised"),
    accent: color("accent"),
    chosen: color("chosen"),
    edge: color("strong-line"),
    font: getComputedStyle(near).fontFamily,
    states: Array.from({ length: 8 }, (_, state) => color(`state-${stateClass(state)}`)),
  };
  probe.remove();
  return palette;
}
