/** Random job chains, built as the server builds them: sequences between noops, conditionals, and `each`. */

import type { Chain } from "../src/graph/model.ts";

/** Returns numbers from 0 to below 1 that depend on the seed alone (mulberry32). */
export function randomNumbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

type Span = [first: string, last: string];
type Content = (id: string, end: string) => void;
/** Returns the content of a sequence that is in another one. */
type Inside = (around: string) => Content;

export class ChainWriter {
  readonly chain = { jobs: {}, adjacencyList: {}, pathLabels: {}, windows: {} } as Required<Chain>;
  edges = 0;
  private next = 0;

  /** Reserves an id. */
  id(): string {
    return (this.next++).toString(36).padStart(4, "0");
  }

  job(name: string, sequenceId: string, parentSequenceId: string, type = "shell-command", id = this.id()): string {
    this.chain.jobs[id] = { id, name, type, sequenceId, parentSequenceId };
    return id;
  }

  noop(sequenceId: string, parentSequenceId: string, id = this.id()): string {
    return this.job("noop", sequenceId, parentSequenceId, "noop", id);
  }

  edge(from: string, to: string): void {
    (this.chain.adjacencyList[from] ??= []).push(to);
    this.edges++;
  }

  /** Writes a sequence between two noops. The content writes nodes, and links them. */
  sequence(label: string, parent: string, content: (id: string, end: string) => void): Span {
    const id = this.noop("", parent);
    const job = this.chain.jobs[id];
    if (job) job.sequenceId = id;
    this.chain.pathLabels[id] = label;
    const end = this.noop(id, parent);
    content(id, end);
    return [id, end];
  }

  /** Writes a sequence with a `finally`: three sequences, of which the body has the label "". */
  withFinally(label: string, parent: string, body: Inside, last: Inside): Span {
    return this.sequence(label, parent, (around, end) => {
      const [first, bodyEnd] = this.sequence("", around, body(around));
      const before = new Set(Object.keys(this.chain.jobs));
      const [begin, done] = this.sequence("finally", around, last(around));
      for (const [id, job] of Object.entries(this.chain.jobs)) if (!before.has(id)) job.isFinally = true;
      this.edge(around, first);
      this.edge(bodyEnd, begin);
      this.edge(done, end);
      this.edge(bodyEnd, end);
    });
  }

  /** Writes an `each` in a sequence: groups of elements between forks and joins. */
  each(sequenceId: string, parent: string, count: number, parallel: number, element: (row: number) => Span): Span {
    const before = this.noop(sequenceId, parent);
    let previous = before;
    for (let begin = 0; begin < count; begin += parallel) {
      const [fork, join] = [this.noop(sequenceId, parent), this.noop(sequenceId, parent)];
      this.edge(previous, fork);
      for (let row = begin; row < Math.min(count, begin + parallel); row++) {
        const [first, last] = element(row);
        this.edge(fork, first);
        this.edge(last, join);
      }
      previous = join;
    }
    const after = this.noop(sequenceId, parent);
    this.edge(previous, after);
    return [before, after];
  }
}

/** Returns a request over many hosts: two jobs in a sequence for each, as `each` builds it. */
export function fleet(hosts: number, parallel = hosts): ChainWriter {
  const writer = new ChainWriter();
  writer.sequence("fleet", "", (root, end) => {
    const [before, after] = writer.each(root, "", hosts, parallel, (row) =>
      writer.sequence(`host web${row}`, root, (id, last) => {
        const first = writer.job("drain", id, root);
        const second = writer.job("restart", id, root);
        writer.edge(id, first);
        writer.edge(first, second);
        writer.edge(second, last);
      }),
    );
    writer.edge(root, before);
    writer.edge(after, end);
  });
  return writer;
}

/** Returns a request with random nodes, at most a few levels deep. */
export function randomChain(seed: number): ChainWriter {
  const random = randomNumbers(seed);
  const whole = (most: number) => Math.floor(random() * (most + 1));
  const writer = new ChainWriter();
  const fill = (depth: number, parent: string, isFinal = false): Content => (id, end) => {
    const spans: Span[] = [];
    const isLast: boolean[] = [];
    for (let node = whole(5); node >= 0; node--) {
      const span = writeNode(`node-${node}`, depth, id, parent, isFinal);
      const before = spans.filter(() => random() < 0.3);
      for (const [, last] of before) writer.edge(last, span[0]);
      for (const one of before) isLast[spans.indexOf(one)] = false;
      if (before.length === 0) writer.edge(id, span[0]);
      spans.push(span);
      isLast.push(true);
    }
    spans.forEach(([, last], place) => isLast[place] && writer.edge(last, end));
  };
  const writeNode = (name: string, depth: number, id: string, parent: string, isFinal: boolean): Span => {
    const kind = depth > 3 ? 0 : whole(4);
    if (kind < 2) {
      const job = writer.job(name, id, parent);
      return [job, job];
    }
    const inner = (label: string) => writer.sequence(label, id, fill(depth + 1, id, isFinal));
    if (kind === 2) {
      if (isFinal || whole(4)) return inner(name);
      const body = (around: string) => fill(depth + 1, around);
      return writer.withFinally(name, id, body, (around) => fill(depth + 1, around, true));
    }
    if (kind === 3) return conditional(inner, name, id, parent);
    const count = 2 + whole(4);
    const style = whole(2);
    return writer.each(id, parent, count, 1 + whole(count), (row) => {
      const label = `${name} host web${row}`;
      if (style === 1) return inner(label);
      if (style === 2) return conditional(inner, label, id, parent);
      const job = writer.job(name, id, parent);
      writer.chain.pathLabels[job] = label;
      return [job, job];
    });
  };
  const conditional = (inner: (label: string) => Span, label: string, id: string, parent: string): Span => {
    const before = writer.noop(id, parent);
    const [first, last] = inner(label);
    const after = writer.noop(id, parent);
    writer.edge(before, first);
    writer.edge(last, after);
    return [before, after];
  };
  writer.sequence("request", "", fill(0, ""));
  return writer;
}
