/** The filters of the list by type, user, args and time. */

import { useEffect, useState } from "preact/hooks";

import { call } from "../api/call";
import type { RequestSpec } from "../api/types";
import { fromLocalTime, hasFilters, localTime, writeFilters, type ListFilters } from "../model/list-filters";

interface Props {
  filters: ListFilters;
  onChange: (filters: ListFilters) => void;
}

const HOUR = 3_600_000;
const RECENT: [string, number][] = [
  ["1 h", HOUR],
  ["24 h", 24 * HOUR],
  ["7 d", 7 * 24 * HOUR],
];

const NONE: ListFilters = { type: "", state: "", user: "", since: "", until: "", args: [] };

export function FilterForm({ filters, onChange }: Props) {
  const types = useTypes();
  // A narrow screen shows the form only when it is asked for.
  const [isOpen, setOpen] = useState(false);
  const active = writeFilters({ ...filters, state: "" }).size;
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget as HTMLFormElement);
    const text = (name: string) => String(form.get(name) ?? "").trim();
    const arg = text("arg");
    onChange({
      ...filters,
      type: text("type"),
      user: text("user"),
      since: changedTime(filters.since, text("since")),
      until: changedTime(filters.until, text("until")),
      args: arg.includes("=") && !filters.args.includes(arg) ? [...filters.args, arg] : filters.args,
    });
  };
  return (
    <>
      <button
        type="button"
        class="filter-toggle"
        aria-expanded={isOpen}
        aria-controls="filters"
        onClick={() => setOpen(!isOpen)}
      >
        Filters{active ? ` (${active})` : ""}
      </button>
      <form
        id="filters"
        class={isOpen ? "filters is-open" : "filters"}
        onSubmit={submit}
        aria-label="Filters"
      >
        <label>
          Type
          <input name="type" list="request-types" value={filters.type} autocomplete="off" />
        </label>
        <datalist id="request-types">
          {types.map((type) => (
            <option key={type} value={type} />
          ))}
        </datalist>
        <label>
          User
          <input name="user" value={filters.user} autocomplete="off" />
        </label>
        <label>
          Arg
          <input
            name="arg"
            placeholder="name=value"
            pattern="[^=]+=.*"
            title="name=value"
            autocomplete="off"
          />
        </label>
        <label>
          Active since
          <input name="since" type="datetime-local" value={localTime(filters.since)} />
        </label>
        <label>
          Created before
          <input name="until" type="datetime-local" value={localTime(filters.until)} />
        </label>
        <span class="filter-buttons">
          <button>Filter</button>
          <span class="choices" role="group" aria-label="Active in the last">
            {RECENT.map(([name, length]) => (
              <button
                type="button"
                key={name}
                onClick={() =>
                  onChange({ ...filters, since: new Date(Date.now() - length).toISOString(), until: "" })
                }
              >
                {name}
              </button>
            ))}
          </span>
          {hasFilters(filters) && (
            <button type="button" class="quiet-button" onClick={() => onChange(NONE)}>
              Clear
            </button>
          )}
        </span>
        {filters.args.length > 0 && (
          <span class="arg-filters">
            {filters.args.map((arg) => (
              <button
                type="button"
                key={arg}
                aria-label={`Remove the filter ${arg}`}
                onClick={() => onChange({ ...filters, args: filters.args.filter((one) => one !== arg) })}
              >
                <code>{arg}</code> ×
              </button>
            ))}
          </span>
        )}
      </form>
    </>
  );
}

/** A field has minutes only. If it was not changed, the time of the address stays with its seconds. */
function changedTime(before: string, value: string): string {
  return value === localTime(before) ? before : fromLocalTime(value);
}

function useTypes(): string[] {
  const [types, setTypes] = useState<string[]>([]);
  useEffect(() => {
    call<RequestSpec[]>("/api/v1/request-list").then(
      ({ body }) => setTypes(body.map((spec) => spec.Name)),
      () => setTypes([]), // The field then has no suggestions.
    );
  }, []);
  return types;
}
