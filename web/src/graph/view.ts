/** Which part of the graph is visible, and how large. */

import { PADDING, TITLE } from "./layout.ts";
import { isBox, type Box, type Item } from "./model.ts";

/** A point of the graph at x, y is drawn at x * scale + left, y * scale + top, in CSS pixels. */
export interface View {
  left: number;
  top: number;
  scale: number;
}

export interface Size {
  width: number;
  height: number;
}

export const LARGEST = 2.5;
const SMALLEST = 0.002;
const MARGIN = 16; // Pixels around the graph; less in a small window.

/** Whole graphs are not drawn larger than this, because a single job does not fill a window. */
const LARGEST_FIT = 1.25;

/** Returns the view that shows a whole box, or the beginning of it if that needs a smaller scale than `least`. */
export function fitted(box: Box, size: Size, least = SMALLEST): View {
  const margin = Math.min(MARGIN, size.height / 20);
  const fit = Math.min((size.width - 2 * margin) / box.width, (size.height - 2 * margin) / box.height);
  const scale = Math.max(least, Math.min(LARGEST_FIT, fit));
  const start = (length: number, window: number) => Math.max(margin, (window - length * scale) / 2);
  return { left: start(box.width, size.width), top: start(box.height, size.height), scale };
}

/** Returns the view after a zoom by a factor. The point of the window at x, y stays. */
export function zoomed(view: View, factor: number, x: number, y: number): View {
  const scale = Math.max(SMALLEST, Math.min(LARGEST, view.scale * factor));
  const change = scale / view.scale;
  return { left: x - (x - view.left) * change, top: y - (y - view.top) * change, scale };
}

/** Returns a view in which the graph keeps some pixels inside the window. */
export function bounded(view: View, root: Box, size: Size): View {
  const keep = 40;
  const clamp = (start: number, length: number, window: number) =>
    Math.max(keep - length, Math.min(window - keep, start));
  return {
    left: clamp(view.left, root.width * view.scale, size.width),
    top: clamp(view.top, root.height * view.scale, size.height),
    scale: view.scale,
  };
}

/** Returns the place of an item in the whole graph. */
export function placeOf(item: Item): { x: number; y: number } {
  let [x, y] = [0, 0];
  for (let one: Item | null = item; one?.parent; one = one.parent) {
    x += one.x;
    y += one.y;
  }
  return { x, y };
}

/** Returns the view after the shortest move that makes an item visible, large enough to read. */
export function showing(view: View, item: Item, size: Size): View {
  const readable = Math.max(view.scale, 0.7);
  const { x, y } = placeOf(item);
  const height = isBox(item) && item.isOpen ? TITLE + PADDING : item.height;
  const move = (start: number, place: number, length: number, window: number) => {
    const first = MARGIN - place * readable;
    const last = window - MARGIN - (place + length) * readable;
    return last < first ? first : Math.max(first, Math.min(last, start));
  };
  const base = readable === view.scale ? view : zoomed(view, readable / view.scale, size.width / 2, size.height / 2);
  return {
    left: move(base.left, x, Math.min(item.width, size.width / readable), size.width),
    top: move(base.top, y, height, size.height),
    scale: readable,
  };
}

/** Returns the innermost item at a point of the window, or null. */
export function itemAt(root: Box, view: View, x: number, y: number): Item | null {
  let [graphX, graphY] = [(x - view.left) / view.scale, (y - view.top) / view.scale];
  if (graphX < 0 || graphY < 0 || graphX > root.width || graphY > root.height) return null;
  let found: Item = root;
  while (isBox(found) && found.isOpen) {
    const inner: Item | undefined = found.items.find(
      (item) =>
        item.kind !== "dot" && graphX >= item.x && graphY >= item.y &&
        graphX <= item.x + item.width && graphY <= item.y + item.height,
    );
    if (!inner) break;
    graphX -= inner.x;
    graphY -= inner.y;
    found = inner;
  }
  return found;
}

type Direction = "ArrowLeft" | "ArrowRight" | "ArrowUp" | "ArrowDown";

/** Returns the item of the same box that is next in a direction, or null. */
export function nextIn(direction: Direction, from: Item): Item | null {
  const isSideways = direction === "ArrowLeft" || direction === "ArrowRight";
  const sign = direction === "ArrowRight" || direction === "ArrowDown" ? 1 : -1;
  const centre = (item: Item) => [item.x + item.width / 2, item.y + item.height / 2] as const;
  const [fromX, fromY] = centre(from);
  let best: Item | null = null;
  let least = Infinity;
  for (const item of from.parent?.items ?? []) {
    if (item === from || item.kind === "dot") continue;
    const [x, y] = centre(item);
    const along = (isSideways ? x - fromX : y - fromY) * sign;
    const across = Math.abs(isSideways ? y - fromY : x - fromX);
    // In the direction, and more along it than across: a step to the right never ends far above.
    if (along <= 1 || (!isSideways && across > along * 2 + from.width / 2)) continue;
    const distance = along + across * 2;
    if (distance >= least) continue;
    least = distance;
    best = item;
  }
  return best;
}
