/** The state of a request or a job: a sign, a colour and a word, so that none of them is needed alone. */

import {
  COMPLETE,
  FAIL,
  PENDING,
  RUNNING,
  stateClass,
  stateLabel,
  STOPPED,
  SUSPENDED,
} from "../model/states";

/** Paths in a square of 16. */
export const SIGNS: Record<number, string> = {
  [PENDING]: "M8 3.2a4.8 4.8 0 1 0 0 9.6 4.8 4.8 0 0 0 0-9.6z",
  [RUNNING]: "M8 2.5A5.5 5.5 0 0 1 13.5 8",
  [COMPLETE]: "M3.2 8.6l3.2 3.2 6.4-7.2",
  [FAIL]: "M4 4l8 8M12 4l-8 8",
  [STOPPED]: "M4.5 4.5h7v7h-7z",
  [SUSPENDED]: "M5.5 3.5v9M10.5 3.5v9",
};

export function StateSign({ state }: { state: number }) {
  return (
    <svg
      class={`sign state-${stateClass(state)}`}
      viewBox="0 0 16 16"
      width="16"
      height="16"
      aria-hidden="true"
    >
      {state === RUNNING && <circle cx="8" cy="8" r="5.5" class="sign-track" />}
      <path d={SIGNS[state] ?? SIGNS[PENDING]} />
    </svg>
  );
}

export function Badge({ state, label }: { state: number; label?: string }) {
  return (
    <span class={`badge state-${stateClass(state)}`}>
      <StateSign state={state} />
      {label ?? stateLabel(state)}
    </span>
  );
}
