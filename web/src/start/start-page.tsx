/** The types of requests that a user can start. */

import { useEffect, useState } from "preact/hooks";

import { call, type OnError } from "../api/call";
import type { RequestSpec } from "../api/types";
import { SearchField } from "../parts/search-field";
import { RequestForm } from "./request-form";
import { Link } from "../parts/address";
import { may, useCaller } from "../parts/caller";

interface Props {
  /** The chosen type. Empty: none. */
  type: string;
  /** The id of an earlier request whose args fill the form. Empty: none. */
  from: string;
  onError: OnError;
}

export function StartPage({ type, from, onError }: Props) {
  const [specs, setSpecs] = useState<RequestSpec[] | null>(null);
  const [text, setText] = useState("");
  const caller = useCaller();
  useEffect(() => {
    document.title = type ? `New ${type} – Spin Cycle` : "New request – Spin Cycle";
  }, [type]);
  useEffect(() => {
    call<RequestSpec[]>("/api/v1/request-list").then(({ body }) => setSpecs(body), onError);
  }, []);
  if (specs === null) return <p role="status">Loading types of requests…</p>;
  if (type) {
    const spec = specs.find((one) => one.Name === type);
    if (spec) return <RequestForm key={`${type} ${from}`} spec={spec} from={from} />;
    return (
      <p class="notice notice-error">There is no type of requests named {type}, or you may not start it.</p>
    );
  }
  const startable = specs.filter((spec) => may(caller, spec.Name, "start"));
  const shown = startable.filter((spec) => spec.Name.toLowerCase().includes(text.trim().toLowerCase()));
  return (
    <>
      <div class="page-head">
        <h1>New request</h1>
        <SearchField label="Find a type" text={text} onText={setText} />
      </div>
      <ul class="types">
        {shown.map((spec) => (
          <li key={spec.Name}>
            <Link to={`/start/${encodeURIComponent(spec.Name)}`}>{spec.Name}</Link>
            <span class="quiet">{argNames(spec)}</span>
          </li>
        ))}
      </ul>
      {shown.length === 0 && (
        <p class="empty">{startable.length ? "No type matches." : "You may start no requests."}</p>
      )}
    </>
  );
}

function argNames(spec: RequestSpec): string {
  if (spec.Args.length === 0) return "no args";
  return spec.Args.map((arg) => (arg.Type === "required" ? arg.Name : `[${arg.Name}]`)).join(" ");
}
