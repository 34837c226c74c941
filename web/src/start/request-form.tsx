/** The form of a new request: its args, a plan of its jobs, and then its start. */

import { useEffect, useRef, useState } from "preact/hooks";

import { ApiError, call, newKey, send } from "../api/call";
import type { Json, Request, RequestSpec } from "../api/types";
import { ArgField } from "./arg-field";
import { Plan } from "./plan";
import { argsOf, faultOf, fieldOf, type Field } from "../model/arg-values";
import { go, Link } from "../parts/address";

interface Props {
  spec: RequestSpec;
  from: string;
}

interface Planned {
  body: { Type: string; Args: Record<string, Json>; StrictArgs: true };
  request: Request;
  /** Makes it safe to send the creation again. */
  key: string;
}

function initialFields(spec: RequestSpec, earlier: Request | null): Map<string, Field> {
  const values = new Map(earlier?.args?.filter((arg) => arg.Given).map((arg) => [arg.Name, arg.Value]));
  return new Map(spec.Args.map((arg) => [arg.Name, fieldOf(arg, values.get(arg.Name))]));
}

export function RequestForm({ spec, from }: Props) {
  const [fields, setFields] = useState<Map<string, Field> | null>(from ? null : initialFields(spec, null));
  const [showsFaults, setShowsFaults] = useState(false);
  const [planned, setPlanned] = useState<Planned | null>(null);
  const [isBusy, setBusy] = useState(false);
  const [error, setError] = useState("");
  const form = useRef<HTMLFormElement>(null);

  useEffect(() => {
    if (!from) return;
    call<Request>(`/api/v1/requests/${encodeURIComponent(from)}?view=BASIC`).then(
      ({ body }) => setFields(initialFields(spec, body)),
      (raised: ApiError) => {
        setError(`The args of the earlier request could not be read. ${raised.message}`);
        setFields(initialFields(spec, null));
      },
    );
  }, []);
  if (fields === null) return <p role="status">Loading the args of {from}…</p>;

  const faults = new Map(spec.Args.map((arg) => [arg.Name, faultOf(arg, fields.get(arg.Name) as Field)]));
  const change = (name: string, field: Field) => {
    setFields(new Map(fields).set(name, field));
    setPlanned(null);
  };
  const run = async (action: () => Promise<void>) => {
    setBusy(true);
    setError("");
    try {
      await action();
    } catch (raised) {
      if (!(raised instanceof ApiError)) throw raised;
      setError(raised.message);
    }
    setBusy(false);
  };
  const plan = (event: SubmitEvent) => {
    event.preventDefault();
    setShowsFaults(true);
    const wrong = spec.Args.find((arg) => faults.get(arg.Name));
    if (wrong) return form.current?.querySelector<HTMLElement>(`[name="${CSS.escape(wrong.Name)}"]`)?.focus();
    const body = { Type: spec.Name, Args: argsOf(spec.Args, fields), StrictArgs: true } as const;
    void run(async () => {
      const answer = await send<Request>("/api/v1/requests/plan", body);
      setPlanned({ body, request: answer.body, key: newKey() });
    });
  };
  const create = (made: Planned) =>
    run(async () => {
      const answer = await send<Request>("/api/v1/requests", made.body, { "Idempotency-Key": made.key });
      go(`/requests/${answer.body.id}`);
    });

  return (
    <>
      <nav class="crumbs" aria-label="Breadcrumb">
        <Link to="/start">New request</Link>
      </nav>
      <div class="page-head">
        <h1>{spec.Name}</h1>
      </div>
      {from && (
        <p class="notice">
          The form has the args of <Link to={`/requests/${from}`}>{from}</Link>. Nothing has started yet.
        </p>
      )}
      <form class="arg-form" ref={form} onSubmit={plan} noValidate>
        {spec.Args.map((arg) => (
          <ArgField
            key={arg.Name}
            arg={arg}
            field={fields.get(arg.Name) as Field}
            fault={showsFaults ? (faults.get(arg.Name) ?? "") : ""}
            onChange={(field) => change(arg.Name, field)}
          />
        ))}
        {spec.Args.length === 0 && <p class="quiet">This type has no args.</p>}
        {error && (
          <p class="notice notice-error" role="alert">
            {error}
          </p>
        )}
        <div class="form-buttons">
          <button class={planned ? "" : "primary"} disabled={isBusy}>
            {isBusy && !planned ? "Planning…" : planned ? "Plan again" : "Plan"}
          </button>
          {!planned && <span class="quiet">A plan shows the jobs. Nothing is stored or started.</span>}
        </div>
      </form>
      {planned && <Plan request={planned.request} isBusy={isBusy} onStart={() => void create(planned)} />}
    </>
  );
}
