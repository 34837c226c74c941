/** A small picture of the whole graph, with a frame around what the window shows. */

import { draw, type Scene } from "./draw.ts";
import { fitted, type Size, type View } from "./view.ts";

/** In CSS pixels, as in the style. */
const SIZE: Size = { width: 160, height: 100 };

export class Minimap {
  private readonly canvas: HTMLCanvasElement;
  private readonly whole = document.createElement("canvas");
  private view: View = { left: 0, top: 0, scale: 1 };
  private isStale = true;

  constructor(canvas: HTMLCanvasElement) {
    this.canvas = canvas;
  }

  /** Says that the graph looks different. The whole graph is drawn again only then. */
  change(): void {
    this.isStale = true;
  }

  /** Shows the part of a scene that is visible, or nothing if all of it is. */
  show(scene: Scene): void {
    const { root, view, size } = scene;
    const [right, bottom] = [view.left + root.width * view.scale, view.top + root.height * view.scale];
    this.canvas.hidden = view.left >= 0 && view.top >= 0 && right <= size.width && bottom <= size.height;
    if (this.canvas.hidden) return;
    const context = this.canvas.getContext("2d");
    if (!context) return;
    if (this.isStale) this.drawWhole(scene);
    const scale = resized(this.canvas);
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.drawImage(this.whole, 0, 0);
    context.setTransform(scale, 0, 0, scale, 0, 0);
    const part = this.view.scale / view.scale;
    const [x, y] = [this.view.left - view.left * part, this.view.top - view.top * part];
    context.strokeStyle = scene.palette.accent;
    context.lineWidth = 2;
    context.strokeRect(x, y, size.width * part, size.height * part);
  }

  /** Returns the point of the graph at a point of this picture. */
  pointAt(x: number, y: number): { x: number; y: number } {
    return { x: (x - this.view.left) / this.view.scale, y: (y - this.view.top) / this.view.scale };
  }

  private drawWhole(scene: Scene): void {
    const scale = resized(this.whole);
    const context = this.whole.getContext("2d", { alpha: false });
    if (!context) return;
    this.isStale = false;
    this.view = fitted(scene.root, SIZE);
    context.setTransform(scale, 0, 0, scale, 0, 0);
    draw(context, { ...scene, view: this.view, size: SIZE, selected: null });
  }
}

/** Gives a canvas as many pixels as the screen has, and returns how many a CSS pixel is. */
function resized(canvas: HTMLCanvasElement): number {
  const [width, height] = [Math.round(SIZE.width * devicePixelRatio), Math.round(SIZE.height * devicePixelRatio)];
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  return devicePixelRatio;
}
