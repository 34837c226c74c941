/** The requests that match filters, their counts, and their changes. */

import { useEffect, useRef, useState } from "preact/hooks";

import { call, type ApiError, type OnError } from "../api/call";
import { Stream, type Connection } from "../api/stream";
import type { Request, StateCount, WatchMessage } from "../api/types";
import { writeFilters, type ListFilters } from "../model/list-filters";
import { merged } from "../model/merge";

export const PAGE_SIZE = 50;
const COUNT_PAUSE = 3000; // Milliseconds between two counts, because each looks at many requests.

export interface ListState {
  /** Null: not yet loaded. */
  requests: Request[] | null;
  counts: StateCount[];
  /** The token of the page with older requests. Empty: there is none. */
  next: string;
  connection: Connection;
  /** The requests of the last message of the stream. */
  changed: Request[];
}

const EMPTY: ListState = { requests: null, counts: [], next: "", connection: "connecting", changed: [] };

export function useRequestList(filters: ListFilters, token: string, onError: OnError): ListState {
  const [list, setList] = useState(EMPTY);
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  const query = writeFilters(filters).toString();

  useEffect(() => {
    let isOver = false;
    const change = (part: (list: ListState) => Partial<ListState>) => {
      if (!isOver) setList((list) => ({ ...list, ...part(list) }));
    };
    let hasFailed = false;
    const fail = (error: ApiError) => {
      if (isOver) return;
      hasFailed = true;
      onError(error);
    };
    const count = () => {
      const all = writeFilters({ ...filters, state: "" });
      call<StateCount[]>(`/api/v1/request-counts?${all}`).then(
        ({ body }) => change(() => ({ counts: body })),
        fail,
      );
    };
    const countSoon = () => {
      timer.current ??= setTimeout(() => {
        timer.current = undefined;
        count();
      }, COUNT_PAUSE);
    };
    const page = new URLSearchParams(query);
    page.set("pageSize", String(PAGE_SIZE));
    if (token) page.set("pageToken", token);
    const load = () => {
      call<Request[]>(`/api/v1/requests?${page}`).then(
        ({ body, nextPageToken }) => change(() => ({ requests: body, next: nextPageToken })),
        fail,
      );
      count();
    };
    const onConnection = (connection: Connection) => {
      change(() => ({ connection }));
      if (connection !== "live" || !hasFailed || isOver) return;
      hasFailed = false;
      onError(null);
      load();
    };
    setList((list) => ({ ...EMPTY, counts: list.counts }));
    load();

    const watched = new URLSearchParams(query);
    watched.set("limit", String(PAGE_SIZE));
    const options = (next: string) => ({
      isFirstPage: !token,
      hasMore: next !== "",
      state: filters.state,
      pageSize: PAGE_SIZE,
    });
    const stream = new Stream<WatchMessage>(`/api/v1/watch?${watched}`, "/api/v1/caller", {
      onMessage: ({ requests: changed = [], gone = [] }) => {
        if (changed.length + gone.length === 0) return;
        change(({ requests, next }) => ({
          changed,
          requests:
            requests &&
            merged(
              requests.filter((one) => !gone.includes(one.id)),
              changed,
              options(next),
            ),
        }));
        countSoon();
      },
      onConnection,
      onError: fail,
    });
    return () => {
      isOver = true;
      stream.close();
      clearTimeout(timer.current);
      timer.current = undefined;
    };
  }, [query, token]);
  return list;
}
