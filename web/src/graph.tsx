/** The graph of a job chain: boxes that open, on a canvas. */

import { useEffect, useMemo, useRef, useState } from "preact/hooks";

import "./graph.css";
import { find } from "./graph/find.ts";
import { listen } from "./graph/gestures.ts";
import type { Chain, Item, Tree } from "./graph/model.ts";
import { describe, Picture } from "./graph/picture.ts";
import { countText } from "./model/counts";
import { StateSign } from "./parts/badge";
import { COMPLETE, FAIL, PENDING, RUNNING, stateClass, stateLabel, STOPPED, SUSPENDED } from "./model/states";
import { SearchField } from "./parts/search-field";

const LEGEND = [FAIL, RUNNING, STOPPED, SUSPENDED, COMPLETE, PENDING];
const ZOOM_STEP = 1.4;

interface Props {
  /** The whole chain. A new object is a new chain. */
  chain: Chain;
  /** The states of jobs by id; a new map after each change. Other jobs are PENDING. */
  states: ReadonlyMap<string, number>;
  /** The state of the request. */
  requestState: number;
  /** Called with the job that the user wants to see. */
  onJob: (jobId: string) => void;
}

/** Keeps a picture of the chain on a canvas, and draws this component again when the picture has changed. */
function usePicture({ chain, states, requestState, onJob }: Props) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const map = useRef<HTMLCanvasElement>(null);
  const [picture, setPicture] = useState<Picture | null>(null);
  const [, draw] = useState(0);
  const job = useRef(onJob);
  job.current = onJob;

  useEffect(() => {
    if (!canvas.current || !map.current) return;
    const made = new Picture(canvas.current, map.current, () => draw((count) => count + 1));
    made.setStates(states, requestState);
    setPicture(made);
    const stop = listen(canvas.current, made, (id) => job.current(id));
    const sizes = new ResizeObserver(() => made.resize());
    sizes.observe(canvas.current);
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    const recolor = () => made.recolor();
    scheme.addEventListener("change", recolor);
    addEventListener("spincycle-theme", recolor);
    void made.load(chain);
    return () => {
      made.close();
      stop();
      sizes.disconnect();
      scheme.removeEventListener("change", recolor);
      removeEventListener("spincycle-theme", recolor);
    };
  }, [chain]);

  useEffect(() => picture?.setStates(states, requestState), [picture, states, requestState]);
  return { canvas, map, picture };
}

export function Graph(props: Props) {
  const { canvas, map, picture } = usePicture(props);
  const tree = picture?.tree ?? null;
  const selected = picture?.selected ?? null;
  const said = selected && picture?.states ? describe(selected, stateLabel(picture.states.of(selected))) : "";
  return (
    <section class="graph" aria-label="Graph">
      <div class="graph-bar">
        {picture && tree && <Search picture={picture} tree={tree} />}
        <div class="graph-buttons" role="group" aria-label="View">
          <button onClick={() => picture?.zoom(1 / ZOOM_STEP)} aria-label="Zoom out">−</button>
          <button onClick={() => picture?.zoom(ZOOM_STEP)} aria-label="Zoom in">+</button>
          <button onClick={() => picture?.fit()}>Show all</button>
          <button onClick={() => void picture?.toggleAll(true)}>Open all</button>
          <button onClick={() => void picture?.toggleAll(false)}>Close all</button>
        </div>
      </div>
      {picture && tree && <Legend picture={picture} tree={tree} />}
      <div class="graph-place">
        <canvas
          ref={canvas}
          class="graph-canvas"
          tabIndex={0}
          role="application"
          aria-label="Job chain"
          aria-describedby="graph-keys"
        />
        <canvas
          ref={map}
          class="graph-map"
          hidden
          aria-hidden="true"
          onPointerDown={(event) => moveTo(event, picture)}
          onPointerMove={(event) => event.buttons & 1 && moveTo(event, picture)}
        />
      </div>
      <p class="graph-said" role="status">{tree ? said : "Arranging the jobs…"}</p>
      <p class="graph-keys" id="graph-keys">
        Drag to move, scroll to zoom, click a box to open or close it, and click a job to show it. By keyboard: arrow
        keys select, Enter goes into a box or shows a job, Escape goes out, Space opens or closes, plus and minus
        zoom, 0 shows all, and Shift with arrow keys moves the picture.
      </p>
    </section>
  );
}

function moveTo(event: PointerEvent, picture: Picture | null): void {
  picture?.centre(event.offsetX, event.offsetY);
}

/** The states in words, signs and colours, with the number of jobs: also the summary of the graph. */
function Legend({ picture, tree }: { picture: Picture; tree: Tree }) {
  const counts = LEGEND.map((state) => [state, picture.states?.count(tree.root, state) ?? 0] as const);
  return (
    <ul class="graph-legend" aria-label={`${countText(tree.root.tasks)} jobs by state`}>
      {counts.map(([state, count]) => (
        <li key={state} class={`state-${stateClass(state)}`}>
          <StateSign state={state} /> {stateLabel(state)} {countText(count)}
        </li>
      ))}
    </ul>
  );
}

function Search({ picture, tree }: { picture: Picture; tree: Tree }) {
  const [text, setText] = useState("");
  const [place, setPlace] = useState(-1);
  const found = useMemo(() => find(tree, text), [tree, text]);
  const show = (next: number) => {
    if (found.length === 0) return;
    const chosen = (next + found.length) % found.length;
    setPlace(chosen);
    picture.select(found[chosen] as Item);
  };
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    show(place + 1);
  };
  const number = place < 0 ? "" : `${countText(place + 1)} of `;
  return (
    <form class="graph-search" role="search" onSubmit={submit}>
      <SearchField
        label="Find a job or a host"
        text={text}
        onText={(next) => {
          setText(next);
          setPlace(-1);
        }}
      />
      <button aria-label="Next match" disabled={found.length === 0}>Next</button>
      <span role="status">{text.trim() && `${number}${countText(found.length)} found`}</span>
    </form>
  );
}
