/** Times, and a clock that runs while something on the page is not over. */

import { useEffect, useState } from "preact/hooks";

import { agoText, timeText } from "../model/times";

/** Returns the time in milliseconds, again each second while `runs` is set. */
export function useNow(runs: boolean): number {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    setNow(Date.now());
    if (!runs) return;
    const timer = setInterval(() => setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, [runs]);
  return now;
}

/** A point in time with its zone. */
export function Time({ at }: { at: string | number }) {
  return <time dateTime={new Date(at).toISOString()}>{timeText(at)}</time>;
}

/** How long ago a time was. The whole time is its title. */
export function Ago({ at, now }: { at: string | number; now: number }) {
  return (
    <time dateTime={new Date(at).toISOString()} title={timeText(at)}>
      {agoText(at, now)}
    </time>
  );
}
