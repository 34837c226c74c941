/** Requests by time and outcome, so that a wave of failures can be seen at once. */

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";

import { call } from "../api/call";
import { countText } from "../model/counts";
import { dataOf, optionsOf, STATES } from "./chart-options";
import type { Request } from "../api/types";
import { bucketsOf, bucketText, OUTCOMES, type Buckets } from "../model/buckets";
import { writeFilters, type ListFilters } from "../model/list-filters";
import { stateClass, STATE_NAMES } from "../model/states";
import { durationText, timeText } from "../model/times";

const MOST = 500; // Requests in the chart.

interface Props {
  filters: ListFilters;
  changed: Request[];
}

export function Chart({ filters, changed }: Props) {
  const requests = useNewest(filters, changed);
  const buckets = useMemo(() => bucketsOf([...requests.values()], Date.now()), [requests]);
  const [index, setIndex] = useState<number | null>(null);
  const place = useRef<HTMLDivElement>(null);
  const theme = useTheme();
  const width = useWidth(place);

  useEffect(() => {
    const element = place.current;
    if (!element || !buckets || width === 0) return;
    const plot = new uPlot(optionsOf(element, buckets, width, setIndex), dataOf(buckets), element);
    return () => plot.destroy();
  }, [buckets, theme, width]);

  if (requests.size < 2) return null;
  const sums = OUTCOMES.map(
    (outcome) => [outcome, buckets?.counts[outcome].reduce((one, other) => one + other, 0) ?? 0] as const,
  );
  return (
    <figure class="chart">
      <figcaption>
        <span class="legend">
          {sums.map(([outcome, count]) => (
            <span key={outcome} class={`legend-part state-${stateClass(STATES[outcome])}`}>
              {countText(count)} {outcome}
            </span>
          ))}
        </span>
        <span class="quiet">{buckets && captionOf(buckets, index, requests.size)}</span>
      </figcaption>
      <div
        class="chart-place"
        ref={place}
        role="img"
        aria-label="Requests by the time of their creation and by their outcome"
      />
    </figure>
  );
}

function captionOf(buckets: Buckets, index: number | null, count: number): string {
  const start = index === null ? undefined : buckets.starts[index];
  if (index !== null && start !== undefined)
    return `${timeText(start * 1000)}: ${bucketText(buckets, index)}`;
  const which = count >= MOST ? `the newest ${MOST} requests` : "requests";
  return `${which} by creation, a bar for each ${durationText(buckets.step * 1000)}`;
}

function useNewest(filters: ListFilters, changed: Request[]): Map<string, Request> {
  const [requests, setRequests] = useState(new Map<string, Request>());
  const query = writeFilters(filters).toString();
  useEffect(() => {
    let isOver = false;
    call<Request[]>(`/api/v1/requests?${query}&pageSize=${MOST}`).then(
      ({ body }) => isOver || setRequests(new Map(body.map((request) => [request.id, request]))),
      () => isOver || setRequests(new Map()), // The list above has said why.
    );
    return () => {
      isOver = true;
    };
  }, [query]);
  useEffect(() => {
    const matching = changed.filter(
      (request) => !filters.state || STATE_NAMES[request.state] === filters.state,
    );
    if (matching.length)
      setRequests((before) => new Map([...before, ...matching.map((one) => [one.id, one] as const)]));
  }, [changed]);
  return requests;
}

function useTheme(): number {
  const [count, setCount] = useState(0);
  useEffect(() => {
    const change = () => setCount((before) => before + 1);
    const system = matchMedia("(prefers-color-scheme: dark)");
    system.addEventListener("change", change);
    addEventListener("spincycle-theme", change);
    return () => {
      system.removeEventListener("change", change);
      removeEventListener("spincycle-theme", change);
    };
  }, []);
  return count;
}

function useWidth(place: { current: HTMLElement | null }): number {
  const [width, setWidth] = useState(0);
  const element = place.current;
  useEffect(() => {
    if (!place.current) return;
    const observer = new ResizeObserver(([entry]) => setWidth(Math.floor(entry?.contentRect.width ?? 0)));
    observer.observe(place.current);
    return () => observer.disconnect();
  }, [element]);
  return width;
}
