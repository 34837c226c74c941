/** The args of a request. */

import type { RequestArg } from "../api/types";
import { valueText } from "../model/arg-values";

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
          <dd>{valueText(arg.Value) || <span class="quiet">empty</span>}</dd>
        </div>
      ))}
    </dl>
  );
}
