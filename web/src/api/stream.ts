/**
 * A stream of server-sent events that survives restarts of servers.
 *
 * EventSource connects again by itself after a broken connection, but gives up after an error response, which is
 * what a server sends that starts or stops. Then this stream connects again, after the last cursor. It also
 * disconnects while the page is hidden, because browsers allow few connections to one server.
 */

import { ApiError, call } from "./call.ts";

export type Connection = "connecting" | "live" | "reconnecting" | "ended" | "failed";

export interface StreamListener<Message> {
  onMessage: (message: Message) => void;
  onConnection: (connection: Connection) => void;
  onError: (error: ApiError) => void;
}

const FIRST_PAUSE = 500; // Milliseconds before the first new connection. Later pauses double.
const LONGEST_PAUSE = 10_000;
const HIDDEN_PAUSE = 30_000; // Milliseconds that a hidden page stays connected.
const RESUMABLE = new Set([429, 503]);

export class Stream<Message> {
  readonly #path: string;
  readonly #probe: string;
  readonly #listener: StreamListener<Message>;
  #source: EventSource | null = null;
  #cursor = "";
  #pause = FIRST_PAUSE;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #hasEnded = false;

  /** `probe` is a path that answers with the error if the stream cannot be opened. */
  constructor(path: string, probe: string, listener: StreamListener<Message>) {
    this.#path = path;
    this.#probe = probe;
    this.#listener = listener;
    document.addEventListener("visibilitychange", this.#onVisibility);
    listener.onConnection("connecting");
    if (!document.hidden) this.#open();
  }

  close(): void {
    this.#hasEnded = true;
    document.removeEventListener("visibilitychange", this.#onVisibility);
    this.#disconnect();
  }

  #open(): void {
    const separator = this.#path.includes("?") ? "&" : "?";
    const resumed = this.#cursor ? `${separator}cursor=${encodeURIComponent(this.#cursor)}` : "";
    const source = new EventSource(this.#path + resumed);
    this.#source = source;
    source.onopen = () => this.#listener.onConnection("live");
    source.onmessage = (event: MessageEvent<string>) => {
      this.#pause = FIRST_PAUSE;
      if (event.lastEventId) this.#cursor = event.lastEventId;
      this.#listener.onMessage(JSON.parse(event.data) as Message);
    };
    source.addEventListener("end", () => this.#end("ended"));
    source.addEventListener("error", (event) => this.#onError(source, event));
  }

  #onError(source: EventSource, event: Event): void {
    if (this.#hasEnded || source !== this.#source) return;
    if (event instanceof MessageEvent) {
      const { message, httpStatus, reason } = JSON.parse(event.data as string) as Record<string, unknown>;
      if (!RESUMABLE.has(Number(httpStatus))) {
        return this.#fail(new ApiError(String(message), Number(httpStatus), String(reason)));
      }
    }
    this.#listener.onConnection("reconnecting");
    if (source.readyState !== EventSource.CLOSED && !(event instanceof MessageEvent)) return;
    this.#disconnect();
    this.#timer = setTimeout(this.#connectAgain, this.#pause);
    this.#pause = Math.min(2 * this.#pause, LONGEST_PAUSE);
  }

  /** Asks first, because EventSource does not tell with which status it was refused. */
  #connectAgain = async (): Promise<void> => {
    try {
      await call(this.#probe);
    } catch (raised) {
      const error = raised as ApiError;
      if (!error.isTemporary && !this.#hasEnded) return this.#fail(error);
      this.#timer = setTimeout(this.#connectAgain, this.#pause);
      this.#pause = Math.min(2 * this.#pause, LONGEST_PAUSE);
      if (this.#hasEnded) this.#disconnect();
      return;
    }
    if (!this.#hasEnded && this.#source === null && !document.hidden) this.#open();
  };

  #onVisibility = (): void => {
    if (document.hidden) {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#disconnect(), HIDDEN_PAUSE);
    } else {
      clearTimeout(this.#timer);
      if (this.#source === null) void this.#connectAgain();
    }
  };

  #fail(error: ApiError): void {
    this.#end("failed");
    this.#listener.onError(error);
  }

  #end(connection: Connection): void {
    this.close();
    this.#listener.onConnection(connection);
  }

  #disconnect(): void {
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#source = null;
  }
}
