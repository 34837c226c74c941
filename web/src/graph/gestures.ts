/** Mouse, touch, wheel and keyboard on the canvas. */

import { isBox, type Item } from "./model.ts";
import type { Picture } from "./picture.ts";
import { nextIn } from "./view.ts";

/** A pointer that moves less than this, in pixels, clicks. */
const CLICK = 4;
const ZOOM_STEP = 1.25;
const PAN_STEP = 80;

interface Point {
  x: number;
  y: number;
}

/** Listens on a canvas, and returns a function that ends it. */
export function listen(canvas: HTMLCanvasElement, picture: Picture, onJob: (jobId: string) => void): () => void {
  const gestures = new Gestures(canvas, picture, onJob);
  const ended = new AbortController();
  const { signal } = ended;
  canvas.addEventListener("pointerdown", (event) => gestures.down(event), { signal });
  canvas.addEventListener("pointermove", (event) => gestures.move(event), { signal });
  canvas.addEventListener("pointerup", (event) => gestures.up(event), { signal });
  canvas.addEventListener("pointercancel", (event) => gestures.cancel(event), { signal });
  canvas.addEventListener("wheel", (event) => gestures.wheel(event), { signal, passive: false });
  canvas.addEventListener("keydown", (event) => gestures.key(event), { signal });
  return () => ended.abort();
}

class Gestures {
  private readonly pointers = new Map<number, Point>();
  private begin: Point | null = null;
  private readonly canvas: HTMLCanvasElement;
  private readonly picture: Picture;
  private readonly onJob: (jobId: string) => void;

  constructor(canvas: HTMLCanvasElement, picture: Picture, onJob: (jobId: string) => void) {
    this.canvas = canvas;
    this.picture = picture;
    this.onJob = onJob;
  }

  down(event: PointerEvent): void {
    if (event.button !== 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, pointOf(event));
    this.begin = this.pointers.size === 1 ? pointOf(event) : null;
  }

  move(event: PointerEvent): void {
    const before = this.pointers.get(event.pointerId);
    const now = pointOf(event);
    if (!before) {
      const item = this.picture.itemAt(now.x, now.y);
      this.canvas.style.cursor = item && item !== this.picture.tree?.root ? "pointer" : "grab";
      return;
    }
    if (this.begin && distance(this.begin, now) >= CLICK) this.begin = null;
    if (this.begin) return;
    const other = [...this.pointers].find(([id]) => id !== event.pointerId)?.[1];
    this.pointers.set(event.pointerId, now);
    if (!other) {
      this.picture.pan(now.x - before.x, now.y - before.y);
      return;
    }
    const [old, fresh] = [middle(before, other), middle(now, other)];
    this.picture.pan(fresh.x - old.x, fresh.y - old.y);
    this.picture.zoom(distance(now, other) / Math.max(1, distance(before, other)), fresh.x, fresh.y);
  }

  up(event: PointerEvent): void {
    const isClick = this.begin !== null;
    this.cancel(event);
    if (!isClick) return;
    const { x, y } = pointOf(event);
    this.click(this.picture.itemAt(x, y));
  }

  cancel(event: PointerEvent): void {
    this.pointers.delete(event.pointerId);
    this.begin = null;
  }

  wheel(event: WheelEvent): void {
    event.preventDefault();
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
    const delta = Math.max(-120, Math.min(120, event.deltaY * lines));
    this.picture.zoom(Math.exp(-delta * (event.ctrlKey ? 0.01 : 0.002)), event.offsetX, event.offsetY);
  }

  key(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { picture } = this;
    const selected = picture.selected ?? picture.tree?.root ?? null;
    if (!selected || !this.act(event, selected)) return;
    event.preventDefault();
  }

  /** Does what a key stands for. Returns whether it stands for something. */
  private act(event: KeyboardEvent, selected: Item): boolean {
    const { picture } = this;
    switch (event.key) {
      case "ArrowLeft":
      case "ArrowRight":
      case "ArrowUp":
      case "ArrowDown":
        this.arrow(event.key, event.shiftKey, selected);
        return true;
      case "Enter":
        this.enter(selected);
        return true;
      case " ":
        if (isBox(selected)) picture.toggle(selected);
        return true;
      case "Escape":
        if (selected.parent) picture.select(selected.parent);
        return selected.parent !== null;
      case "+":
      case "=":
        picture.zoom(ZOOM_STEP);
        return true;
      case "-":
        picture.zoom(1 / ZOOM_STEP);
        return true;
      case "0":
        picture.fit();
        return true;
      default:
        return false;
    }
  }

  private arrow(key: "ArrowLeft" | "ArrowRight" | "ArrowUp" | "ArrowDown", isPan: boolean, selected: Item): void {
    if (!isPan) {
      const next = nextIn(key, selected);
      if (next || this.picture.selected === null) this.picture.select(next ?? selected);
      return;
    }
    const sideways = key === "ArrowLeft" ? 1 : key === "ArrowRight" ? -1 : 0;
    const down = key === "ArrowUp" ? 1 : key === "ArrowDown" ? -1 : 0;
    this.picture.pan(sideways * PAN_STEP, down * PAN_STEP);
  }

  private enter(selected: Item): void {
    if (!isBox(selected)) {
      this.onJob(selected.id);
      return;
    }
    if (!selected.isOpen) this.picture.toggle(selected, true);
    const first = selected.items.find((item) => item.kind !== "dot");
    if (first) this.picture.select(first);
  }

  private click(item: Item | null): void {
    if (!item) return;
    if (isBox(item)) {
      if (item.parent) this.picture.toggle(item);
      return;
    }
    this.picture.select(item, false);
    this.onJob(item.id);
  }
}

function pointOf(event: PointerEvent): Point {
  return { x: event.offsetX, y: event.offsetY };
}

function middle(a: Point, b: Point): Point {
  return { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 };
}

function distance(a: Point, b: Point): number {
  return Math.hypot(a.x - b.x, a.y - b.y);
}
