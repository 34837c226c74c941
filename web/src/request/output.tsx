/** The output of a try, live while the job writes it, with search and ANSI colours. */

import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";

import type { Connection } from "../api/stream";
import { OutputBar, type Shown } from "./output-bar";
import { OutputRow, LINE_HEIGHT } from "./output-row";
import { useLineRows } from "./use-line-rows";
import { useOutput } from "./use-output";
import type { LinePlace } from "../model/fragment";
import { search, type OutputLine } from "../model/output-lines";
import { useKept } from "../parts/kept";
import { showRow, useVirtualRows } from "../parts/virtual-list";

const NEAR = 4; // Pixels from the end of the output that still count as its end.

interface Props {
  path: string;
  probe: string;
  line: LinePlace | null;
  onLine: (line: LinePlace) => void;
}

export function Output({ path, probe, line, onLine }: Props) {
  const { output, version, connection, error } = useOutput(path, probe);
  const [shown, setShown] = useState<Shown>("all");
  const [text, setText] = useState("");
  const [foundAt, setFoundAt] = useState(0);
  const place = useRef<HTMLDivElement>(null);
  const isAtEnd = useRef(line === null);
  const hasShownLine = useRef("");
  const lines = useMemo<readonly OutputLine[]>(
    () => (shown === "all" ? output.lines : output.lines.filter((one) => one.stream === shown)),
    [output, version, shown],
  );
  const found = useMemo(() => search(lines, text), [lines, version, text]);
  const [wraps, setWraps] = useKept("spincycle-wrap", true);
  const rows = useLineRows(place, lines, version, wraps);
  const slice = useVirtualRows(place, rows.count, LINE_HEIGHT);
  const first = rows.lineAt(slice.first);
  const end = slice.end ? rows.lineAt(slice.end - 1) + 1 : 0;
  const topLine = useRef(0);
  const current = found[Math.min(foundAt, found.length - 1)];

  useEffect(() => {
    const element = place.current;
    if (!element) return;
    const wanted = line ? `${line.stream} ${line.number}` : "";
    if (line && hasShownLine.current !== wanted) {
      const index = lines.findIndex((one) => one.stream === line.stream && one.number === line.number);
      if (index < 0) return;
      hasShownLine.current = wanted;
      isAtEnd.current = false;
      showRow(element, rows.rowOf(index), LINE_HEIGHT, "center");
    } else if (isAtEnd.current) element.scrollTop = element.scrollHeight;
  }, [lines, version, line?.stream, line?.number]);

  const go = (index: number) => {
    const next = (index + found.length) % (found.length || 1);
    setFoundAt(next);
    isAtEnd.current = false;
    if (!place.current || found[next] === undefined) return;
    showRow(place.current, rows.rowOf(found[next]), LINE_HEIGHT, "center");
    // In a long line, the match itself may be further down or to the right. It is drawn before the next frame.
    requestAnimationFrame(() => {
      place.current
        ?.querySelector(".is-found mark")
        ?.scrollIntoView({ block: "nearest", inline: "nearest" });
    });
  };
  // What was at the top stays there when lines are broken in another way.
  useLayoutEffect(() => {
    const element = place.current;
    if (element)
      element.scrollTop = isAtEnd.current ? element.scrollHeight : rows.rowOf(topLine.current) * LINE_HEIGHT;
  }, [rows.columns]);
  // The panel above the lines grows when the try ends, and their end must stay in view.
  useEffect(() => {
    const element = place.current;
    if (!element) return;
    const observer = new ResizeObserver(() => {
      if (isAtEnd.current) element.scrollTop = element.scrollHeight;
    });
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  // While a text is typed, its first match is shown.
  useEffect(() => {
    if (found.length) go(0);
  }, [text]);
  const choose = (one: OutputLine) => {
    hasShownLine.current = `${one.stream} ${one.number}`;
    onLine({ stream: one.stream, number: one.number });
  };
  return (
    <section class="output" aria-label="Output">
      <OutputBar
        shown={shown}
        onShown={setShown}
        text={text}
        onText={setText}
        found={found.length}
        foundAt={foundAt}
        onGo={go}
        wraps={wraps}
        onWraps={setWraps}
        status={statusOf(connection, error)}
      />
      <div
        class={wraps ? "output-text output-wraps" : "output-text"}
        ref={place}
        tabIndex={0}
        role="log"
        aria-label="Lines of output"
        aria-live="off"
        onScroll={({ currentTarget: at }) => {
          isAtEnd.current = at.scrollHeight - at.scrollTop - at.clientHeight < NEAR;
          topLine.current = rows.lineAt(Math.floor(at.scrollTop / LINE_HEIGHT));
        }}
      >
        <div class="output-space" style={{ height: `${rows.count * LINE_HEIGHT}px` }}>
          <div class="output-rows" style={{ transform: `translateY(${rows.rowOf(first) * LINE_HEIGHT}px)` }}>
            {lines.slice(first, end).map((one, offset) => (
              <OutputRow
                key={first + offset}
                line={one}
                version={one.text.length}
                text={text}
                isFound={first + offset === current}
                isChosen={line !== null && one.stream === line.stream && one.number === line.number}
                onChoose={choose}
              />
            ))}
          </div>
        </div>
        {lines.length === 0 && <p class="empty">{emptyText(connection)}</p>}
      </div>
    </section>
  );
}

function statusOf(connection: Connection, error: string): string {
  if (error) return error;
  return {
    connecting: "Connecting…",
    live: "Live",
    reconnecting: "Reconnecting…",
    ended: "Output complete",
    failed: "Not live",
  }[connection];
}

function emptyText(connection: Connection): string {
  return connection === "ended"
    ? "The job wrote nothing."
    : connection === "live"
      ? "The job has written nothing yet."
      : "";
}
