/** How uPlot draws the chart of requests: stacked bars in the colours of their outcomes. */

import uPlot from "uplot";

import { OUTCOMES, stacked, type Buckets, type Outcome } from "../model/buckets";
import { COMPLETE, FAIL, RUNNING, stateClass, STOPPED } from "../model/states";

const HEIGHT = 110; // Pixels, as in the style.

/** The states whose colours stand for the outcomes. */
export const STATES: Record<Outcome, number> = {
  failed: FAIL,
  stopped: STOPPED,
  complete: COMPLETE,
  active: RUNNING,
};

export function dataOf(buckets: Buckets): uPlot.AlignedData {
  // The highest bar is drawn first, because the lower ones cover it.
  return [buckets.starts, ...stacked(buckets).reverse()];
}

export function optionsOf(
  element: HTMLElement,
  buckets: Buckets,
  width: number,
  onIndex: (index: number | null) => void,
): uPlot.Options {
  const color = (name: string) => resolved(element, `var(--${name})`);
  const bars = uPlot.paths.bars?.({ size: [0.8, 40], align: 1 });
  const axis = {
    stroke: color("quiet"),
    grid: { stroke: color("line"), width: 1 },
    ticks: { show: false },
    font: "12px system-ui",
  };
  const last = (buckets.starts.at(-1) ?? 0) + buckets.step;
  return {
    width,
    height: HEIGHT,
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, points: { show: false } },
    padding: [8, 30, 0, 0], // Half of the last label is to the right of the last bar.
    scales: {
      x: { time: true, range: () => [buckets.starts[0] ?? 0, last] },
      y: { range: (_, __, most) => [0, Math.max(1, most)] },
    },
    axes: [
      {
        ...axis,
        grid: { show: false },
        size: 24,
        space: 90,
        values: (_, times) => times.map((time) => tickText(time, buckets.step)),
      },
      { ...axis, size: 36, space: 34, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500] },
    ],
    series: [
      {},
      ...[...OUTCOMES].reverse().map((outcome) => {
        const fill = color(`state-${stateClass(STATES[outcome])}`);
        return { fill, stroke: fill, width: 0, points: { show: false }, ...(bars ? { paths: bars } : {}) };
      }),
    ],
    hooks: { setCursor: [(plot) => onIndex(plot.cursor.idx ?? null)] },
  };
}

/** Days if the chart has days, otherwise the time of day. */
function tickText(time: number, step: number): string {
  const date = new Date(time * 1000);
  const isMidnight = date.getHours() + date.getMinutes() + date.getSeconds() === 0;
  if (step >= 10_800 || isMidnight)
    return date.toLocaleDateString("en-GB", { day: "numeric", month: "short" });
  const seconds = step < 60 ? ({ second: "2-digit" } as const) : {};
  return date.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", ...seconds });
}

/** Canvas knows no variables of styles. */
function resolved(element: HTMLElement, value: string): string {
  const before = element.style.color;
  element.style.color = value;
  const color = getComputedStyle(element).color;
  element.style.color = before;
  return color;
}
