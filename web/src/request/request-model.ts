/** One request as the page knows it. It reads the request and its chain once, and then follows the stream of changes. */

import { ApiError, call } from "../api/call";
import { Stream, type Connection } from "../api/stream";
import type { Job, JobChain, Request, WatchMessage } from "../api/types";
import { JobRecord } from "../model/job-record";
import { hasEnded, PENDING } from "../model/states";
import { buildTree, EMPTY_TREE, type Tree } from "../model/tree";

const SHORTEST_PAUSE = 100; // Milliseconds between two drawings of the page.
const SHARE = 4; // The page draws for at most a fourth of the time.

export class RequestModel {
  readonly id: string;
  readonly record = new JobRecord();
  request: Request | null = null;
  tree: Tree = EMPTY_TREE;
  connection: Connection = "connecting";
  error: ApiError | null = null;
  /** The tries so far have arrived. */
  isComplete = false;
  isGone = false;
  /** Grows with each change that is drawn. */
  version = 0;
  readonly #onChange: () => void;
  #stream: Stream<WatchMessage> | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #cost = 0;
  #isClosed = false;

  constructor(id: string, onChange: () => void) {
    this.id = id;
    this.#onChange = onChange;
    void this.#begin();
  }

  get path(): string {
    return `/api/v1/requests/${encodeURIComponent(this.id)}`;
  }

  close(): void {
    this.#isClosed = true;
    this.#stream?.close();
    clearTimeout(this.#timer);
  }

  async #begin(): Promise<void> {
    await this.refresh();
    if (this.#isClosed || (this.error && !this.error.isTemporary)) return;
    this.#stream = new Stream<WatchMessage>(`${this.path}/watch`, `${this.path}?view=BASIC`, {
      onMessage: (message) => this.#add(message),
      onConnection: (connection) => {
        this.connection = connection;
        this.#changed();
        if (connection === "live" && this.error?.isTemporary) void this.#repair();
      },
      onError: (error) => {
        this.error = error;
        this.#changed();
      },
    });
    await this.#load();
  }

  async #load(): Promise<void> {
    await this.#try(async () => {
      const chain = await this.#readChain();
      this.record.chain = chain;
      this.tree = buildTree(chain);
    });
  }

  /** Does again what failed while the server could not be reached. */
  async #repair(): Promise<void> {
    this.error = null;
    if (!this.request?.args) await this.refresh();
    if (!this.record.chain && !this.error) await this.#load();
  }

  /** Reads what the stream does not send: the args, and the newest retry. */
  async refresh(): Promise<void> {
    await this.#try(async () => {
      const { body } = await call<Request>(`${this.path}?view=BASIC`);
      this.request = body;
    });
  }

  async #try(action: () => Promise<void>): Promise<void> {
    try {
      await action();
    } catch (raised) {
      if (!(raised instanceof ApiError)) throw raised;
      this.error = raised;
    }
    this.#changed();
  }

  /** Reads the whole chain at once: the server reads all of it for each page too, and sends it compressed. */
  async #readChain(): Promise<JobChain> {
    const { body } = await call<JobChain>(`${this.path}/job-chain`);
    return { ...body, jobs: withoutBytes(body.jobs) };
  }

  #add(message: WatchMessage): void {
    this.record.add(message);
    const newest = message.requests?.at(-1);
    if (newest) {
      const before = this.request;
      this.request = { ...newest };
      if (before?.args) this.request.args = before.args;
      if (before?.retriedBy) this.request.retriedBy = before.retriedBy;
      if (before && !hasEnded(before.state) && hasEnded(newest.state)) void this.refresh();
    }
    if (message.gone?.length) this.isGone = true;
    if (message.snapshotComplete) this.isComplete = true;
    this.#changed();
  }

  /** Draws soon. Many changes in a short time are drawn once. */
  #changed(): void {
    if (this.#timer !== undefined || this.#isClosed) return;
    this.#timer = setTimeout(
      () => {
        this.#timer = undefined;
        this.version++;
        const start = performance.now();
        this.#onChange();
        requestAnimationFrame(() => (this.#cost = performance.now() - start));
      },
      Math.max(SHORTEST_PAUSE, SHARE * this.#cost),
    );
  }
}

/**
 * Returns the state of the request as sequences share it between two of their jobs. Until all tries have arrived, a
 * sequence of which a part is known must not look as if it had stopped there.
 */
export function shownState(model: RequestModel, state: number): number {
  return model.isComplete ? state : PENDING;
}

/** The page does not show what jobs have serialized, which can be most of a chain. */
function withoutBytes(jobs: Record<string, Job & { bytes?: string }>): Record<string, Job> {
  for (const job of Object.values(jobs)) delete job.bytes;
  return jobs;
}
