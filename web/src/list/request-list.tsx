/** The list of requests: newest first, in pages, with counts by state. New states arrive as they happen. */

import { useEffect, useState } from "preact/hooks";

import { ApiError, call } from "../api/call";
import type { Request, StateCount } from "../api/types";
import { STATE_NAMES as STATES } from "../model/states";
import { go, Link } from "../parts/address";

const PAGE_SIZE = 50;
const FILTERS = ["type", "state", "user", "since", "until", "arg"];

interface Props {
  query: URLSearchParams;
  onError: (error: ApiError) => void;
}

/** Returns the filters of an address, as the API takes them. */
function filtersOf(query: URLSearchParams, without = ""): URLSearchParams {
  return new URLSearchParams([...query].filter(([name]) => FILTERS.includes(name) && name !== without));
}

export function RequestList({ query, onError }: Props) {
  const [requests, setRequests] = useState<Request[]>([]);
  const [counts, setCounts] = useState<StateCount[]>([]);
  const [next, setNext] = useState("");
  const filters = filtersOf(query).toString();
  const token = query.get("pageToken") ?? "";

  useEffect(() => {
    const ended = new AbortController();
    const load = <Body,>(path: string, show: (body: Body, next: string) => void) =>
      call<Body>(path, { signal: ended.signal }).then(
        ({ body, nextPageToken }) => ended.signal.aborted || show(body, nextPageToken),
        (error: ApiError) => ended.signal.aborted || onError(error),
      );
    const page = new URLSearchParams(filters);
    page.set("pageSize", String(PAGE_SIZE));
    if (token) page.set("pageToken", token);
    void load<Request[]>(`/api/v1/requests?${page}`, (body, after) => {
      setRequests(body);
      setNext(after);
    });
    const all = filtersOf(new URLSearchParams(filters), "state");
    void load<StateCount[]>(`/api/v1/request-counts?${all}`, setCounts);
    return () => ended.abort();
  }, [filters, token]);

  useEffect(() => {
    const stream = new EventSource(`/api/v1/watch?${filters ? `${filters}&` : ""}limit=1`);
    stream.onmessage = (event: MessageEvent<string>) => {
      const { requests: changed = [] } = JSON.parse(event.data) as { requests?: Request[] };
      setRequests((shown) => merged(shown, changed, token === ""));
    };
    stream.addEventListener("end", () => stream.close());
    return () => stream.close();
  }, [filters, token]);

  return (
    <>
      <h1>Requests</h1>
      <ul class="counts">
        {counts.map(({ state, count, more }) => {
          const name = STATES[state] ?? "";
          const chosen = filtersOf(query, "state");
          if (query.get("state") !== name) chosen.set("state", name);
          return (
            <li key={state}>
              <button aria-pressed={query.get("state") === name} onClick={() => go(`/requests?${chosen}`)}>
                {name} {count.toLocaleString()}
                {more ? "+" : ""}
              </button>
            </li>
          );
        })}
      </ul>
      <table>
        <thead>
          <tr>
            {["Request", "Type", "State", "User", "Created", "Jobs"].map((text) => (
              <th key={text}>{text}</th>
            ))}
          </tr>
        </thead>
        <tbody>
          {requests.map((request) => (
            <tr key={request.id}>
              <td><Link to={`/requests/${request.id}`}>{request.id}</Link></td>
              <td>{request.type}</td>
              <td title={request.waiting}>{STATES[request.state]}</td>
              <td>{request.user}</td>
              <td>{new Date(request.createdAt).toLocaleString()}</td>
              <td>
                {request.finishedJobs} of {request.totalJobs}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
      {requests.length === 0 && <p>No request matches.</p>}
      {next && <Link to={`/requests?${withToken(filters, next)}`}>Older requests</Link>}
    </>
  );
}

function withToken(filters: string, token: string): string {
  const page = new URLSearchParams(filters);
  page.set("pageToken", token);
  return page.toString();
}

/** Returns the list with changed requests. Only the first page gets new ones. */
function merged(shown: Request[], changed: Request[], isFirstPage: boolean): Request[] {
  const newest = new Map(changed.map((request) => [request.id, request]));
  const kept = shown.map((request) => newest.get(request.id) ?? request);
  if (!isFirstPage) return kept;
  const known = new Set(shown.map((request) => request.id));
  const added = changed.filter((request) => !known.has(request.id));
  return [...kept, ...added].sort((a, b) => (a.id < b.id ? 1 : -1)).slice(0, Math.max(PAGE_SIZE, shown.length));
}
