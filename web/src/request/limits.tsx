/** The limits of a request and of its sequences: what they hold, and who is before them. */

import { useMemo } from "preact/hooks";

import type { ApiError, OnError } from "../api/call";
import type { JobChain, Request } from "../api/types";
import { countText } from "../model/counts";
import { sequenceClaims, sequenceText, sortedLimits, waitsForLimit, waitsOf } from "../model/limits";
import { RUNNING, SUSPENDED } from "../model/states";
import { durationText, waitingText } from "../model/times";
import { Link } from "../parts/address";
import { Ago, Time } from "../parts/time";
import { usePolled } from "../parts/use-polled";
import { askLimitsOf } from "../waiting/ask";
import { limitAddress } from "../waiting/limit-list";

const MOST_SHOWN = 5;
const MOST_SEQUENCES = 10;

interface Props {
  chain: JobChain | null;
  request: Request;
  now: number;
  onError: OnError;
}

/** Shows the limits that a request and its sequences hold, or those that they wait for. */
export function RequestLimits({ chain, request, now, onError }: Props) {
  const keys = useMemo(() => (chain?.limits ?? []).map(({ key }) => key), [chain]);
  const hasSequences = useMemo(
    () => Object.values(chain?.jobs ?? {}).some((job) => job.sequenceLimits?.length),
    [chain],
  );
  // A request that has started holds all of its keys until it ends.
  const holds = request.state === RUNNING || request.state === SUSPENDED;
  if (waitsForLimit(request.waiting) && !holds)
    return <Waits key={request.id} request={request} now={now} onError={onError} />;
  if (!holds) return null;
  return (
    <>
      {keys.length > 0 && <Held keys={keys} />}
      {hasSequences && <OfSequences key={request.id} request={request} now={now} onError={onError} />}
    </>
  );
}

/** Shows what sequences hold or wait for. Those who may not list limits see a sentence about the first wait. */
function OfSequences({ request, now, onError }: WaitsProps) {
  const report: OnError = (error: ApiError | null) => (error?.status === 403 ? undefined : onError(error));
  const answer = usePolled(() => askLimitsOf(request.id), report);
  const claims = sequenceClaims(answer?.body ?? [], request.id);
  const sentence = waitsForLimit(request.waiting) && <p class="notice">{waitingText(request.waiting ?? "")}</p>;
  if (claims.length === 0) return sentence || null;
  const left = claims.length - MOST_SEQUENCES;
  return (
    <section class="approval" aria-label="Limits of sequences">
      <h2>Limits of sequences</h2>
      {claims[0]?.claim.holds && sentence}
      <ul class="claims">
        {claims.slice(0, MOST_SEQUENCES).map(({ key, claim }) => (
          <li key={`${key} ${claim.sequenceId}`}>
            <strong>{sequenceText(claim)}</strong>{" "}
            <span>
              {claim.holds ? "holds " : "waits for "}
              <Keys keys={[key]} />
            </span>{" "}
            <span class="quiet">for {durationText(now - Date.parse(claim.since))}</span>
          </li>
        ))}
      </ul>
      {left > 0 && <p class="quiet">And {countText(left)} more.</p>}
      {answer?.nextPageToken && <p class="quiet">The request has more keys than are looked at here.</p>}
    </section>
  );
}

function Held({ keys }: { keys: string[] }) {
  return (
    <p class="quiet">
      Holds {keys.length === 1 ? "the limit" : "the limits"} <Keys keys={keys} />.
    </p>
  );
}

function Keys({ keys }: { keys: string[] }) {
  return (
    <>
      {keys.map((key, index) => (
        <span key={key}>
          {index > 0 && ", "}
          <Link class="key-link" to={limitAddress(key)}>
            <code>{key}</code>
          </Link>
        </span>
      ))}
    </>
  );
}

interface WaitsProps {
  request: Request;
  now: number;
  onError: OnError;
}

function Waits({ request, now, onError }: WaitsProps) {
  // Those who may not list limits see a sentence without links.
  const report: OnError = (error: ApiError | null) => (error?.status === 403 ? undefined : onError(error));
  const answer = usePolled(() => askLimitsOf(request.id), report);
  const waits = waitsOf(sortedLimits(answer?.body ?? []), request.id);
  if (waits.length === 0) return <p class="notice">{waitingText(request.waiting ?? "")}</p>;
  return (
    <>
      {waits.map(({ key, since, before, count }) => (
        <section class="approval" key={key} aria-label={`Waits for the limit ${key}`}>
          <h2>
            Waits for the limit <Keys keys={[key]} />
          </h2>
          <p class="quiet">
            Since <Time at={since} /> (<Ago at={since} now={now} />
            ). {before.length === 0 ? "Requests that you may not view are before it." : "Before it:"}
          </p>
          <ol class="claims">
            {before.slice(0, MOST_SHOWN).map((claim) => (
              <li key={claim.requestId}>
                <Link class="strong-link" to={`/requests/${claim.requestId}`}>
                  {claim.requestType}
                </Link>
                <code class="quiet">{claim.requestId}</code>
                <span class="quiet">
                  {claim.holds ? "has held it for " : "has waited for "}
                  {durationText(now - Date.parse(claim.since))}
                  {claim.user && `, created by ${claim.user}`}
                </span>
              </li>
            ))}
          </ol>
          <MoreBefore address={limitAddress(key)} listed={before.length} count={count} />
        </section>
      ))}
    </>
  );
}

/** Says how many are before a request besides those that are shown. */
function MoreBefore({ address, listed, count }: { address: string; listed: number; count: number }) {
  if (listed === 0) return null;
  if (listed > MOST_SHOWN)
    return (
      <Link to={address}>
        Show {listed < count ? `${countText(listed)} of ${countText(count)}` : `all ${countText(listed)}`}
      </Link>
    );
  return listed < count ? <p class="quiet">And {countText(count - listed)} more.</p> : null;
}
