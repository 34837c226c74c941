/**
 * Draws what is visible of the graph on a canvas.
 *
 * What is outside the window costs nothing but a look at the box around it. Items that are too small to read are
 * plain rectangles, drawn together by state; boxes that are too small to show their content are one rectangle.
 */

import { countOf, countText } from "../model/counts.ts";
import { COMPLETE, FAIL } from "../model/states.ts";
import { SIGNS } from "../parts/badge.tsx";
import { TITLE } from "./layout.ts";
import { isBox, titleOf, type Box, type Item, type Job } from "./model.ts";
import type { Palette } from "./palette.ts";
import type { ItemStates } from "./states.ts";
import type { Size, View } from "./view.ts";

export interface Scene {
  root: Box;
  states: ItemStates;
  selected: Item | null;
  palette: Palette;
  view: View;
  size: Size;
}

/** How much was drawn. */
export interface Drawn {
  /** Items that are readable. */
  items: number;
  /** Items that are plain rectangles. */
  specks: number;
  edges: number;
}

/** Below this scale, text cannot be read. */
const READABLE = 0.5;

/** An open box that is not as high as this, in pixels, is drawn as one rectangle. */
const LEAST_BOX = 14;

/** From this scale on, edges can be told apart. */
const EDGES = 0.12;

/** At most so many edges are drawn, because more of them are a plain area. */
const MOST_EDGES = 3000;

/** What has failed is never smaller than this, in pixels. */
const LEAST_FAILURE = 3;

const RADIUS = 6;
const SIGN_SIZE = 16;

/** Draws a scene in a context whose unit is a CSS pixel, and says how much it drew. */
export function draw(context: CanvasRenderingContext2D, scene: Scene): Drawn {
  return new Drawing(context, scene).all();
}

class Drawing {
  private readonly drawn: Drawn = { items: 0, specks: 0, edges: 0 };
  private readonly specks: number[][] = Array.from({ length: 8 }, () => []);
  private readonly context: CanvasRenderingContext2D;
  private readonly scene: Scene;
  private readonly left: number;
  private readonly top: number;
  private readonly right: number;
  private readonly bottom: number;
  private readonly pixel: number;

  constructor(context: CanvasRenderingContext2D, scene: Scene) {
    const { view, size } = scene;
    this.context = context;
    this.scene = scene;
    this.pixel = 1 / view.scale;
    this.left = -view.left / view.scale;
    this.top = -view.top / view.scale;
    this.right = this.left + size.width / view.scale;
    this.bottom = this.top + size.height / view.scale;
  }

  all(): Drawn {
    const { context, scene } = this;
    context.save();
    context.fillStyle = scene.palette.ground;
    context.fillRect(0, 0, scene.size.width, scene.size.height);
    context.translate(scene.view.left, scene.view.top);
    context.scale(scene.view.scale, scene.view.scale);
    context.textBaseline = "middle";
    this.item(scene.root, 0, 0);
    this.specks.forEach((places, state) => state === FAIL || this.flush(places, state));
    this.flush(this.specks[FAIL] ?? [], FAIL);
    context.restore();
    return this.drawn;
  }

  /** Draws an item whose corner is at x, y, if it is visible. */
  private item(item: Item, x: number, y: number): void {
    const isOutside =
      x > this.right || y > this.bottom || x + item.width < this.left || y + item.height < this.top;
    if (isOutside) return;
    const { scale } = this.scene.view;
    if (item.kind === "dot") this.dot(item, x, y);
    else if (isBox(item) && item.isOpen && item.height * scale >= LEAST_BOX) this.openBox(item, x, y);
    else if (scale < READABLE) this.speck(item, x, y);
    else if (isBox(item)) this.closedBox(item, x, y);
    else this.job(item, x, y);
    if (item === this.scene.selected) this.selection(item, x, y);
  }

  private speck(item: Item, x: number, y: number): void {
    this.drawn.specks++;
    this.specks[this.scene.states.of(item)]?.push(x, y, item.width, item.height);
  }

  private flush(places: number[], state: number): void {
    const { context } = this;
    context.fillStyle = this.scene.palette.states[state] ?? "";
    const least = this.pixel * (state === FAIL ? LEAST_FAILURE : 1);
    for (let index = 0; index < places.length; index += 4) {
      const [width, height] = [places[index + 2] ?? 0, places[index + 3] ?? 0];
      const [x, y] = [places[index] ?? 0, places[index + 1] ?? 0];
      context.fillRect(x, y, Math.max(width, least), Math.max(height, least));
    }
  }

  private dot(item: Job, x: number, y: number): void {
    const { context } = this;
    if (item.width * this.scene.view.scale < 2) return;
    this.drawn.items++;
    context.fillStyle = this.scene.palette.edge;
    context.beginPath();
    context.arc(x + item.width / 2, y + item.height / 2, item.width / 2, 0, 2 * Math.PI);
    context.fill();
  }

  private openBox(box: Box, x: number, y: number): void {
    const { palette, view, states } = this.scene;
    this.drawn.items++;
    this.panel(box, x, y, box.parent ? palette.raised : palette.ground, palette.line);
    if (view.scale >= READABLE) {
      // The title stays visible while its box reaches out of the window.
      const at = Math.min(Math.max(x, this.left), x + box.width - 120);
      const top = Math.min(Math.max(y, this.top), y + box.height - TITLE);
      this.sign(states.of(box), at + 10, top + TITLE / 2 - 6, 12);
      this.text(`− ${titleOf(box)}`, at + 30, top + TITLE / 2 + 2, x + box.width - at - 40, palette.text, 600);
    }
    this.edges(box, x, y);
    for (const item of box.items) this.item(item, x + item.x, y + item.y);
  }

  private edges(box: Box, x: number, y: number): void {
    const { context } = this;
    if (this.scene.view.scale < EDGES || box.from.length === 0) return;
    context.strokeStyle = this.scene.palette.edge;
    context.lineWidth = Math.max(1, this.pixel * 0.8);
    context.beginPath();
    for (let edge = 0; edge < box.from.length && this.drawn.edges < MOST_EDGES; edge++) {
      const from = box.items[box.from[edge] as number] as Item;
      const to = box.items[box.to[edge] as number] as Item;
      const [startX, startY] = [x + from.x + from.width, y + from.y + from.height / 2];
      const [endX, endY] = [x + to.x, y + to.y + to.height / 2];
      if (startX > this.right || endX < this.left) continue;
      if (Math.min(startY, endY) > this.bottom || Math.max(startY, endY) < this.top) continue;
      this.drawn.edges++;
      const bend = Math.min(60, (endX - startX) / 2);
      context.moveTo(startX, startY);
      context.bezierCurveTo(startX + bend, startY, endX - bend, endY, endX, endY);
    }
    context.stroke();
  }

  private job(job: Job, x: number, y: number): void {
    const { palette, states } = this.scene;
    const state = states.of(job);
    this.drawn.items++;
    this.panel(job, x, y, palette.ground, palette.edge);
    this.stripe(job, state, x, y);
    this.sign(state, x + 14, y + job.height / 2 - 7, 14);
    this.text(job.label, x + 34, y + job.height / 2 + 1, job.width - 42, palette.text, 400);
  }

  private closedBox(box: Box, x: number, y: number): void {
    const { palette, states } = this.scene;
    const state = states.of(box);
    this.drawn.items++;
    this.panel(box, x, y, palette.raised, palette.edge);
    this.stripe(box, state, x, y);
    this.sign(state, x + 14, y + 9, 14);
    this.text(`+ ${box.label}`, x + 34, y + 16, box.width - 42, palette.text, 600);
    const complete = states.count(box, COMPLETE);
    const jobs = countOf(box.tasks, "job");
    const note = complete === box.tasks ? jobs : `${countText(complete)} of ${jobs} complete`;
    this.text(note, x + 34, y + 34, box.width - 42, palette.quiet, 400, 11);
  }

  private panel(item: Item, x: number, y: number, ground: string, line: string): void {
    const { context } = this;
    context.beginPath();
    context.roundRect(x, y, item.width, item.height, RADIUS);
    context.fillStyle = ground;
    context.fill();
    context.strokeStyle = line;
    context.lineWidth = this.pixel;
    const isFinally = isBox(item) && item.isFinally;
    if (isFinally) {
      context.setLineDash([6 * this.pixel, 4 * this.pixel]);
      context.strokeStyle = this.scene.palette.quiet;
    }
    context.stroke();
    if (isFinally) context.setLineDash([]);
  }

  private stripe(item: Item, state: number, x: number, y: number): void {
    const { context } = this;
    context.fillStyle = this.scene.palette.states[state] ?? "";
    context.beginPath();
    context.roundRect(x, y, 5, item.height, [RADIUS, 0, 0, RADIUS]);
    context.fill();
  }

  private selection(item: Item, x: number, y: number): void {
    const { context } = this;
    const gap = 3 * this.pixel;
    context.strokeStyle = this.scene.palette.accent;
    context.lineWidth = 3 * this.pixel;
    context.beginPath();
    context.roundRect(x - gap, y - gap, item.width + 2 * gap, item.height + 2 * gap, RADIUS + gap);
    context.stroke();
  }

  private sign(state: number, x: number, y: number, size: number): void {
    const { context } = this;
    context.save();
    context.translate(x, y);
    context.scale(size / SIGN_SIZE, size / SIGN_SIZE);
    context.strokeStyle = this.scene.palette.states[state] ?? "";
    context.lineWidth = 2;
    context.lineCap = "round";
    context.stroke(signPath(state));
    context.restore();
  }

  private text(text: string, x: number, y: number, width: number, color: string, weight: number, size = 13): void {
    const { context } = this;
    context.font = `${weight} ${size}px ${this.scene.palette.font}`;
    context.fillStyle = color;
    context.fillText(shortened(context, text, width), x, y);
  }
}

const paths = new Map<number, Path2D>();

function signPath(state: number): Path2D {
  const known = paths.get(state);
  if (known) return known;
  const path = new Path2D(SIGNS[state] ?? "");
  paths.set(state, path);
  return path;
}

/** The shortened texts, by text, font and width. Bounded: it is emptied when it is full. */
const texts = new Map<string, string>();
const MOST_TEXTS = 5000;

/** Returns a text that is not wider than a number of units. The middle of a longer one becomes "…". */
function shortened(context: CanvasRenderingContext2D, text: string, width: number): string {
  const key = `${Math.floor(width)} ${context.font} ${text}`;
  const known = texts.get(key);
  if (known !== undefined) return known;
  let short = text;
  if (context.measureText(text).width > width) {
    const characters = [...text];
    let [least, most] = [0, characters.length];
    while (least < most) {
      const kept = Math.ceil((least + most) / 2);
      if (context.measureText(cut(characters, kept)).width <= width) least = kept;
      else most = kept - 1;
    }
    short = cut(characters, least);
  }
  if (texts.size >= MOST_TEXTS) texts.clear();
  texts.set(key, short);
  return short;
}

/** Keeps more of the beginning than of the end. */
function cut(characters: string[], kept: number): string {
  const end = Math.floor(kept / 3);
  const begin = kept - end;
  return `${characters.slice(0, begin).join("")}…${end ? characters.slice(-end).join("") : ""}`;
}
