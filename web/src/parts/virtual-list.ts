/** Lists of many rows of which the document has only those that can be seen. All rows have the same height. */

import type { RefObject } from "preact";
import { useEffect, useState } from "preact/hooks";

const BEYOND = 12; // Rows above and below the visible ones, so that scrolling shows no gaps.

export interface Slice {
  first: number;
  /** The index after the last row. */
  end: number;
}

/** Returns which rows of a scrolling element to draw. */
export function useVirtualRows(place: RefObject<HTMLElement>, count: number, height: number): Slice {
  const [view, setView] = useState({ top: 0, height: 800 });
  useEffect(() => {
    const element = place.current;
    if (!element) return;
    const look = () => setView({ top: element.scrollTop, height: element.clientHeight });
    look();
    const observer = new ResizeObserver(look);
    observer.observe(element);
    element.addEventListener("scroll", look, { passive: true });
    return () => {
      observer.disconnect();
      element.removeEventListener("scroll", look);
    };
  }, []);
  // The list may have become shorter since it was scrolled.
  const top = Math.max(0, Math.min(view.top, count * height - view.height));
  const first = Math.max(0, Math.floor(top / height) - BEYOND);
  return { first, end: Math.min(count, Math.ceil((top + view.height) / height) + BEYOND) };
}

/** Scrolls so that a row can be seen. `head`: the height of what stays at the top of the element. */
export function showRow(
  element: HTMLElement,
  index: number,
  height: number,
  where: "nearest" | "center",
  head = 0,
): void {
  const top = index * height;
  const room = element.clientHeight - head;
  if (where === "center") element.scrollTop = top - (room - height) / 2;
  else if (top < element.scrollTop) element.scrollTop = top;
  else if (top + height > element.scrollTop + room) element.scrollTop = top + height - room;
}
