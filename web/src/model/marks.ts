/** Where a text occurs in another one. */

export interface Part {
  text: string;
  isMatch: boolean;
}

/** Splits a text at all places where it contains another one, in upper or lower case. */
export function marked(text: string, wanted: string): Part[] {
  const lower = text.toLowerCase();
  const sought = wanted.toLowerCase();
  // A few letters change their length, such as "İ". Then places cannot be compared.
  if (!sought || lower.length !== text.length) return [{ text, isMatch: false }];
  const parts: Part[] = [];
  let at = 0;
  for (let found = lower.indexOf(sought); found >= 0; found = lower.indexOf(sought, at)) {
    if (found > at) parts.push({ text: text.slice(at, found), isMatch: false });
    at = found + sought.length;
    parts.push({ text: text.slice(found, at), isMatch: true });
  }
  if (at < text.length) parts.push({ text: text.slice(at), isMatch: false });
  return parts;
}
