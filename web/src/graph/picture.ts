/** The graph on a canvas: what it shows, and what is selected in it. */

import { countOf } from "../model/counts.ts";
import { RUNNING } from "../model/states.ts";
import { draw, type Drawn } from "./draw.ts";
import { arrange, setOpen } from "./layout.ts";
import { Minimap } from "./minimap.ts";
import { isBox, type Box, type Chain, type Item, type Tree } from "./model.ts";
import { readPalette, type Palette } from "./palette.ts";
import { atOnce, inSlices } from "./slices.ts";
import { ItemStates } from "./states.ts";
import { buildTree } from "./tree.ts";
import { bounded, fitted, itemAt, placeOf, showing, zoomed, type Size, type View } from "./view.ts";

/** Graphs with at most so many jobs are shown with all boxes open. */
const FEW_JOBS = 60;

/** The least scale at which a small graph is first shown. */
const READABLE_START = 0.55;

/** The event after each frame. Its detail is what was drawn. */
export const DRAWN = "spincycle-drawn";

export class Picture {
  tree: Tree | null = null;
  states: ItemStates | null = null;
  selected: Item | null = null;
  private view: View = { left: 0, top: 0, scale: 1 };
  private size: Size = { width: 0, height: 0 };
  private palette: Palette;
  private frame = 0;
  private readonly ended = new AbortController();
  private readonly canvas: HTMLCanvasElement;
  private readonly minimap: Minimap;
  private readonly onChange: () => void;
  private byJob: ReadonlyMap<string, number> = new Map();
  private requestState = RUNNING;

  /** Draws on two canvases. Calls `onChange` when the tree, the states or the selection have changed. */
  constructor(canvas: HTMLCanvasElement, map: HTMLCanvasElement, onChange: () => void) {
    this.canvas = canvas;
    this.minimap = new Minimap(map);
    this.onChange = onChange;
    this.palette = readPalette(canvas.parentElement ?? document.body);
  }

  /** Builds and places a job chain in slices, and shows it. */
  async load(chain: Chain): Promise<void> {
    const tree = await inSlices(buildTree(chain), this.ended.signal);
    if (!tree) return;
    const isSmall = tree.root.tasks <= FEW_JOBS;
    for (const box of tree.boxes) setOpen(box, isSmall || box === tree.root || isSpine(box));
    if (!(await inSlices(arrange(tree.root), this.ended.signal))) return;
    this.tree = tree;
    this.states = new ItemStates(tree, this.byJob, this.requestState);
    this.begin();
    this.onChange();
  }

  close(): void {
    this.ended.abort();
    cancelAnimationFrame(this.frame);
  }

  setStates(byJob: ReadonlyMap<string, number>, requestState: number): void {
    this.byJob = byJob;
    this.requestState = requestState;
    if (!this.tree) return;
    this.states = new ItemStates(this.tree, byJob, requestState);
    this.minimap.change();
    this.onChange();
    this.redraw();
  }

  /** Reads the colours of the theme again. */
  recolor(): void {
    this.palette = readPalette(this.canvas.parentElement ?? document.body);
    this.minimap.change();
    this.redraw();
  }

  /** Takes over the size of the canvas in CSS pixels. */
  resize(): void {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const isFirst = this.size.width === 0;
    this.size = { width, height };
    if (isFirst) this.begin();
    else this.redraw();
  }

  /** Shows a small graph so large that it can be read, and all of a large one. */
  private begin(): void {
    if (!this.tree || !this.size.width) return;
    const isSmall = this.tree.root.tasks <= FEW_JOBS;
    this.show(fitted(this.tree.root, this.size, isSmall ? READABLE_START : undefined));
  }

  fit(): void {
    if (this.tree && this.size.width) this.show(fitted(this.tree.root, this.size));
  }

  pan(x: number, y: number): void {
    this.show({ ...this.view, left: this.view.left + x, top: this.view.top + y });
  }

  /** Zooms around a point of the canvas, by default its middle. */
  zoom(factor: number, x = this.size.width / 2, y = this.size.height / 2): void {
    this.show(zoomed(this.view, factor, x, y));
  }

  /** Moves the point of the graph at a point of the small picture into the middle of the window. */
  centre(x: number, y: number): void {
    const point = this.minimap.pointAt(x, y);
    const { scale } = this.view;
    this.show({ left: this.size.width / 2 - point.x * scale, top: this.size.height / 2 - point.y * scale, scale });
  }

  itemAt(x: number, y: number): Item | null {
    return this.tree && itemAt(this.tree.root, this.view, x, y);
  }

  /** Selects an item, opens the boxes around it, and moves it into the window. */
  select(item: Item | null, moves = true): void {
    this.selected = item;
    if (item) {
      for (let box = item.parent; box; box = box.parent) setOpen(box, true);
      this.arrangeAgain();
      if (moves) this.show(showing(this.view, item, this.size));
    }
    this.onChange();
    this.redraw();
  }

  /** Opens or closes a box. Its corner stays where it is in the window. */
  toggle(box: Box, isOpen = !box.isOpen): void {
    const before = placeOf(box);
    setOpen(box, isOpen);
    this.arrangeAgain();
    const after = placeOf(box);
    this.pan((before.x - after.x) * this.view.scale, (before.y - after.y) * this.view.scale);
    this.select(box, false);
  }

  /** Opens or closes all boxes in the outermost one. */
  async toggleAll(isOpen: boolean): Promise<void> {
    const { tree } = this;
    if (!tree) return;
    const { view } = this;
    for (const box of tree.boxes) setOpen(box, isOpen || box === tree.root || isSpine(box));
    if (!(await inSlices(arrange(tree.root), this.ended.signal))) return;
    this.minimap.change();
    if (this.selected && !isShown(this.selected)) this.selected = tree.root;
    // Whoever has found something meanwhile looks at that.
    if (this.view === view) this.fit();
    else this.redraw();
    this.onChange();
  }

  private arrangeAgain(): void {
    if (!this.tree || this.tree.root.isArranged) return;
    atOnce(arrange(this.tree.root));
    this.minimap.change();
  }

  private show(view: View): void {
    if (!this.tree) return;
    this.view = bounded(view, this.tree.root, this.size);
    this.redraw();
  }

  private redraw(): void {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      const drawn = this.drawNow();
      if (drawn) this.canvas.dispatchEvent(new CustomEvent(DRAWN, { detail: drawn, bubbles: true }));
    });
  }

  private drawNow(): Drawn | null {
    const context = this.canvas.getContext("2d", { alpha: false });
    const { tree, states, selected, palette, view, size } = this;
    // While all boxes are opened in slices, they have no places yet.
    if (!context || !tree?.root.isArranged || !states || !size.width) return null;
    const [width, height] = [Math.round(size.width * devicePixelRatio), Math.round(size.height * devicePixelRatio)];
    if (this.canvas.width !== width) this.canvas.width = width;
    if (this.canvas.height !== height) this.canvas.height = height;
    context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    const scene = { root: tree.root, states, selected, palette, view, size };
    this.minimap.show(scene);
    return draw(context, scene);
  }
}

/** Whether a box is the only thing that the boxes around it show, or an each among few others. */
function isSpine(box: Box): boolean {
  if (box.kind === "each") return true;
  for (let one = box; one.parent; one = one.parent) if (one.parent.items.length > 1) return false;
  return true;
}

function isShown(item: Item): boolean {
  for (let box = item.parent; box; box = box.parent) if (!box.isOpen) return false;
  return true;
}

/** Returns what an item is, for people who cannot see it. */
export function describe(item: Item, state: string): string {
  if (!isBox(item)) return `Job ${item.label}, ${state}. Press Enter to show it.`;
  const kind = item.kind === "each" ? "Group" : item.isFinally ? "Last part" : "Sequence";
  const size = countOf(item.tasks, "job");
  const action = item.isOpen ? "Press Enter to go into it, Space to close it." : "Press Enter to open it.";
  return `${kind} ${item.label}, ${state}, ${size}. ${action}`;
}
