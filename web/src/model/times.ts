/** Times and durations as text. */

const UNITS: [number, string][] = [
  [86_400, "d"],
  [3_600, "h"],
  [60, "min"],
];

/** Returns a duration in milliseconds as text with at most two units, such as "1 min 5 s". */
export function durationText(milliseconds: number): string {
  const value = Math.max(0, milliseconds);
  if (value < 999.5) return `${Math.round(value)} ms`;
  if (value < 59_950) return `${(value / 1000).toFixed(value < 9_950 ? 1 : 0).replace(/\.0$/, "")} s`;
  const seconds = Math.round(value / 1000);
  for (const [index, [size, unit]] of UNITS.entries()) {
    if (seconds < size) continue;
    const [smaller, name] = UNITS[index + 1] ?? [1, "s"];
    const rest = Math.floor((seconds % size) / smaller);
    const whole = `${Math.floor(seconds / size)} ${unit}`;
    return rest ? `${whole} ${rest} ${name}` : whole;
  }
  return `${seconds} s`;
}

/** Returns a point in time with its zone, such as "29 Nov 2026, 19:00:50 UTC". */
export function timeText(time: number | string, zone?: string): string {
  return format({ day: "numeric", month: "short", year: "numeric", timeZoneName: "short" }, zone).format(
    new Date(time),
  );
}

/** Returns the time of day with its zone. */
export function clockText(time: number | string, zone?: string): string {
  return format({ timeZoneName: "short" }, zone).format(new Date(time));
}

/** Returns how long ago a time was, such as "5 min ago". */
export function agoText(time: number | string, now: number): string {
  const past = now - new Date(time).getTime();
  if (past < 5_000) return "just now";
  const seconds = Math.floor(past / 1000);
  for (const [size, unit] of UNITS) {
    if (seconds >= size) return `${Math.floor(seconds / size)} ${unit} ago`;
  }
  return `${seconds} s ago`;
}

/** Returns why a request waits as a sentence, with times as people read them. */
export function waitingText(waiting: string, zone?: string): string {
  const text = waiting.replace(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z/g, (time) => timeText(time, zone));
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
}

/** Returns why a request waits without the time, for lists that show another time. */
export function shortWaitingText(waiting: string): string {
  return waitingText(waiting.replace(/ since \d{4}-[^ ]*Z/, ""));
}

export function toMilliseconds(nanoseconds: number): number {
  return nanoseconds / 1e6;
}

const FORMATS = new Map<string, Intl.DateTimeFormat>();

function format(parts: Intl.DateTimeFormatOptions, zone: string | undefined): Intl.DateTimeFormat {
  const key = `${Object.keys(parts).join()} ${zone ?? ""}`;
  let found = FORMATS.get(key);
  if (!found) {
    const time = { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" } as const;
    found = new Intl.DateTimeFormat("en-GB", { ...parts, ...time, ...(zone ? { timeZone: zone } : {}) });
    FORMATS.set(key, found);
  }
  return found;
}
