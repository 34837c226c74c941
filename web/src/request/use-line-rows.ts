/** How lines of output are broken in the window that they have. */

import type { RefObject } from "preact";
import { useLayoutEffect, useMemo, useState } from "preact/hooks";

import type { OutputLine } from "../model/output-lines";
import { LineRows, TERMINAL, type Widths } from "../model/wrapping";

const AFTER = 12; // Pixels to the right of a line, as in the style.
const FEWEST = 10; // Characters in a row, also in a window that is not shown.

interface Room extends Widths {
  columns: number;
}

const NO_ROOM: Room = { columns: 0, ...TERMINAL };

/** Returns the rows of the lines. `version` changes with their text. */
export function useLineRows(
  place: RefObject<HTMLElement>,
  lines: readonly OutputLine[],
  version: number,
  wraps: boolean,
): LineRows {
  const [room, setRoom] = useState(NO_ROOM);
  useLayoutEffect(() => {
    const element = place.current;
    if (!element || !wraps) return setRoom(NO_ROOM);
    const look = () => setRoom((before) => roomOf(element, before));
    look();
    const observer = new ResizeObserver(look);
    observer.observe(element);
    return () => observer.disconnect();
  }, [wraps]);
  const rows = useMemo(() => new LineRows(room.columns, room), [room]);
  return useMemo(() => rows.measure(lines), [rows, lines, version]);
}

/** Measures how many characters fit into an element. Returns the room before if it is the same. */
function roomOf(element: HTMLElement, before: Room): Room {
  const style = getComputedStyle(element);
  const context = document.createElement("canvas").getContext("2d");
  if (!context) return NO_ROOM;
  context.font = style.font;
  const measured = (character: string) => context.measureText(character.repeat(100)).width / 100;
  const one = measured("0");
  const space = element.clientWidth - parseFloat(style.getPropertyValue("--numbers")) - AFTER;
  const columns = Math.max(FEWEST, space / one);
  if (columns === before.columns) return before;
  return { columns, wide: measured("漢") / one, picture: measured("🙂") / one };
}
