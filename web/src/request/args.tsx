/** The args of a request. */

import type { Json, RequestArg } from "../api/types";
import { valueText } from "../model/arg-values";
import { countText } from "../model/counts";

const SHORT = 120; // Characters of a value that are always shown.

/** Args that a user gave come first; the others are one click away. */
export function Args({ args }: { args: RequestArg[] }) {
  const given = args.filter((arg) => arg.Given);
  const others = args.filter((arg) => !arg.Given);
  if (args.length === 0) return null;
  return (
    <div class="args">
      <ArgList args={given} />
      {others.length > 0 && (
        <details>
          <summary>
            {others.length} {given.length ? "more " : ""}
            {others.length === 1 ? "arg" : "args"} from the spec
          </summary>
          <ArgList args={others} />
        </details>
      )}
    </div>
  );
}

function ArgList({ args }: { args: RequestArg[] }) {
  if (args.length === 0) return null;
  return (
    <dl class="arg-list">
      {args.map((arg) => (
        <div key={arg.Name}>
          <dt>{arg.Name}</dt>
          <dd>
            <Value value={arg.Value} />
          </dd>
        </div>
      ))}
    </dl>
  );
}

/** A long value is one click away, because a list of hosts can have thousands. */
function Value({ value }: { value: Json }) {
  const text = valueText(value);
  if (!text) return <span class="quiet">empty</span>;
  if (text.length <= SHORT) return <>{text}</>;
  const count = Array.isArray(value) ? ` ${countText(value.length)} values` : "";
  return (
    <details>
      <summary>
        {text.slice(0, SHORT)}…{count}
      </summary>
      {text}
    </details>
  );
}
