/** The newest notifications: where they went, and whether they arrived. For administrators. */

import { useState } from "preact/hooks";

import { ApiError, call, read, type OnError } from "../api/call";
import type { Deliveries, Delivery } from "../api/types";
import { StackedTable } from "../parts/stacked-table";
import { usePolled } from "../parts/use-polled";
import { COMPLETE, FAIL, PENDING, stateClass } from "../model/states";
import { Link } from "../parts/address";
import { Ago, useNow } from "../parts/time";

const PATH = "/api/v1/notifications";
const COLUMNS = ["State", "Event", "Target", "Request", "Tries", "When", ""];
const NUMBERS = new Set(["Tries"]);
const STATES: Record<Delivery["state"], [number, string]> = {
  waiting: [PENDING, "waits"],
  delivered: [COMPLETE, "delivered"],
  "given-up": [FAIL, "given up"],
};

export function Notifications({ onError }: { onError: OnError }) {
  const found = usePolled(() => read<Deliveries>(`${PATH}?limit=50`), onError);
  const now = useNow(true);
  const [note, setNote] = useState("");
  if (found === null || (found.targets.length === 0 && found.deliveries.length === 0)) return null;
  const act = async (path: string, method: string, done: string) => {
    try {
      await call(path, { method });
      setNote(done);
    } catch (raised) {
      setNote((raised as ApiError).message);
    }
  };
  return (
    <section aria-labelledby="notifications-title">
      <div class="toolbar">
        <h2 id="notifications-title">Notifications</h2>
        {found.targets.map((target) => (
          <button
            key={target}
            onClick={() =>
              void act(`${PATH}/targets/${target}/test`, "POST", `A test for ${target} is on its way.`)
            }
          >
            Test {target}
          </button>
        ))}
      </div>
      <p role="status" class="quiet">
        {note}
      </p>
      {found.deliveries.length === 0 ? (
        <p class="quiet">Nothing was sent yet.</p>
      ) : (
        <StackedTable label="Table of notifications" columns={COLUMNS} numbers={NUMBERS}>
          {found.deliveries.map((delivery) => (
            <Row
              key={`${delivery.eventId} ${delivery.target}`}
              delivery={delivery}
              now={now}
              onRedeliver={() =>
                void act(
                  `${PATH}/${delivery.eventId}/${delivery.target}/redeliver`,
                  "PUT",
                  `The event is sent to ${delivery.target} again.`,
                )
              }
            />
          ))}
        </StackedTable>
      )}
    </section>
  );
}

function Row(props: { delivery: Delivery; now: number; onRedeliver: () => void }) {
  const { delivery, now, onRedeliver } = props;
  const [state, text] = STATES[delivery.state];
  return (
    <tr>
      <td>
        <span class={`dot state-${stateClass(state)}`}>{text}</span>
        {delivery.lastError && <span class="below cell-value">{delivery.lastError}</span>}
      </td>
      <td data-label="Event">{delivery.event}</td>
      <td data-label="Target">{delivery.target}</td>
      <td data-label="Request">
        {delivery.requestId && <Link to={`/requests/${delivery.requestId}`}>{delivery.requestType}</Link>}
      </td>
      <td class="number" data-label="Tries">{delivery.attempts}</td>
      <td data-label="When">
        <Ago at={delivery.occurredAt} now={now} />
      </td>
      <td>{delivery.state !== "waiting" && <button onClick={onRedeliver}>Send again</button>}</td>
    </tr>
  );
}
