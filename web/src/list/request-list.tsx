/** The list of requests: newest first, in stable pages, with counts by state. Changes arrive as they happen. */

import { useEffect, useState } from "preact/hooks";

import type { OnError } from "../api/call";
import { ApprovalCount } from "./approval-count";
import { FilterForm } from "./filter-form";
import { RequestTable } from "./request-table";
import { StateCounts } from "./state-counts";
import { PAGE_SIZE, useRequestList } from "./use-request-list";
import { hasFilters, readFilters, writeFilters, type ListFilters } from "../model/list-filters";
import { go, Link } from "../parts/address";
import { lazy } from "../parts/lazy";
import { useNow } from "../parts/time";

const Chart = lazy(() => import("./chart").then((module) => module.Chart));

interface Props {
  query: URLSearchParams;
  onError: OnError;
}

/** The address of the list with other filters: its first page. */
function addressOf(filters: ListFilters): string {
  const query = writeFilters(filters).toString();
  return query ? `/requests?${query}` : "/requests";
}

export function RequestList({ query, onError }: Props) {
  const filters = readFilters(query);
  const token = query.get("pageToken") ?? "";
  const list = useRequestList(filters, token, onError);
  const now = useNow(true);
  const [hasChart, setHasChart] = useState(false);
  useEffect(() => {
    document.title = "Requests – Spin Cycle";
  }, []);
  // The list is drawn first, because it is what most people look for.
  useEffect(() => setHasChart(list.requests !== null), [list.requests !== null]);

  const older = writeFilters(filters);
  older.set("pageToken", list.next);
  return (
    <>
      <div class="page-head">
        <h1>Requests</h1>
        {list.connection === "reconnecting" && (
          <span class="connection connection-reconnecting">Reconnecting…</span>
        )}
        <Link class="button primary" to="/start">
          New request
        </Link>
      </div>
      <StateCounts
        counts={list.counts}
        state={filters.state}
        onChoose={(state) => go(addressOf({ ...filters, state }))}
      >
        <ApprovalCount />
      </StateCounts>
      <FilterForm key={older.toString()} filters={filters} onChange={(next) => go(addressOf(next))} />
      {hasChart && token === "" && <Chart filters={filters} changed={list.changed} />}
      <RequestTable requests={list.requests} now={now} />
      {list.requests?.length === 0 && <Nothing filters={filters} />}
      <nav class="pages" aria-label="Pages">
        {token && <Link to={addressOf(filters)}>Newest requests</Link>}
        {list.next && <Link to={`/requests?${older}`}>Older requests</Link>}
        {list.requests && list.requests.length >= PAGE_SIZE && (
          <span class="quiet">{PAGE_SIZE} on a page</span>
        )}
      </nav>
    </>
  );
}

function Nothing({ filters }: { filters: ListFilters }) {
  if (!hasFilters(filters)) {
    return (
      <p class="empty">
        There are no requests yet. <Link to="/start">Start the first one.</Link>
      </p>
    );
  }
  return (
    <p class="empty">
      No request matches. <Link to="/requests">Show all requests.</Link>
    </p>
  );
}
