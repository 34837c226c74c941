/** The keys of limits, with the requests and sequences that hold them and those that wait for them. */

import { useState } from "preact/hooks";

import type { OnError } from "../api/call";
import type { HeldLimit } from "../api/types";
import { countOf, countText } from "../model/counts";
import {
  fullnessText,
  hiddenClaims,
  kindOf,
  sequenceText,
  sortedLimits,
  type ClaimKind,
} from "../model/limits";
import { PENDING, RUNNING, stateClass, STOPPED } from "../model/states";
import { durationText } from "../model/times";
import { usePolled } from "../parts/use-polled";
import { go, Link } from "../parts/address";
import { useNow } from "../parts/time";
import { askLimits } from "./ask";

/** So many claims of a key are shown without a click. */
const FEW = 10;

const KINDS: Record<ClaimKind, [number, string]> = {
  holds: [RUNNING, "holds it"],
  turn: [PENDING, "has its turn, waits for another limit"],
  waits: [STOPPED, "waits"],
};

interface Page {
  limits: HeldLimit[];
  hasMore: boolean;
}

async function ask(limit: string): Promise<Page> {
  const { body, nextPageToken } = await askLimits(limit);
  return { limits: sortedLimits(body), hasMore: nextPageToken !== "" };
}

export function LimitList({ limit, onError }: { limit: string; onError: OnError }) {
  const found = usePolled(() => ask(limit), onError);
  const now = useNow(true);
  return (
    <section aria-labelledby="limits-title">
      <div class="toolbar">
        <h2 id="limits-title">Limits</h2>
        <KeyForm limit={limit} />
        {limit && <Link to="/waiting">Show all keys</Link>}
      </div>
      {found === null ? (
        <p role="status">Loading limits…</p>
      ) : found.limits.length === 0 ? (
        <p class="quiet">
          {limit ? (
            <>
              No request that you may view holds or waits for <code>{limit}</code>.
            </>
          ) : (
            "No request holds a limit or waits for one."
          )}
        </p>
      ) : (
        found.limits.map((one) => <Limit key={one.key} limit={one} now={now} />)
      )}
      {found?.hasMore && (
        <p class="quiet">There are more keys. Enter a key to see who holds it.</p>
      )}
    </section>
  );
}

/** Asks for one key. The API finds whole keys only. */
function KeyForm({ limit }: { limit: string }) {
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    const key = String(new FormData(event.currentTarget as HTMLFormElement).get("key") ?? "").trim();
    go(key ? limitAddress(key) : "/waiting");
  };
  return (
    <form class="key-form" role="search" onSubmit={submit}>
      <input
        type="search"
        name="key"
        aria-label="Whole key of a limit"
        placeholder="Whole key"
        defaultValue={limit}
      />
      <button>Find</button>
    </form>
  );
}

/** Returns the address that shows one key. */
export function limitAddress(key: string): string {
  return `/waiting?${new URLSearchParams({ limit: key })}`;
}

function Limit({ limit, now }: { limit: HeldLimit; now: number }) {
  const [showsAll, setShowsAll] = useState(false);
  const claims = showsAll ? limit.claims : limit.claims.slice(0, FEW);
  const hidden = hiddenClaims(limit);
  return (
    <article class="limit">
      <h3>
        <code>{limit.key}</code> <span class="quiet">{fullnessText(limit)}</span>
      </h3>
      <ol class="claims">
        {claims.map((claim, index) => {
          const [state, text] = KINDS[kindOf(limit, index)];
          return (
            <li key={`${claim.requestId}/${claim.sequenceId ?? ""}`}>
              <span class={`dot state-${stateClass(state)}`}>{text}</span>
              <span>
                <Link class="strong-link" to={`/requests/${claim.requestId}`}>
                  {claim.requestType}
                </Link>{" "}
                {sequenceText(claim) && `${sequenceText(claim)} `}
                <code class="quiet">{claim.requestId}</code>
              </span>
              <span class="quiet">
                for {durationText(now - Date.parse(claim.since))}
                {claim.user && `, created by ${claim.user}`}
              </span>
            </li>
          );
        })}
      </ol>
      {limit.claims.length > claims.length && (
        <button class="link" onClick={() => setShowsAll(true)}>
          Show {countText(limit.claims.length - claims.length)} more
        </button>
      )}
      {hidden > 0 && (
        <p class="quiet">
          {countOf(hidden, "further claim is", "further claims are")} not shown here.
        </p>
      )}
    </article>
  );
}
