/** One arg in the form of a new request. */

import { useRef } from "preact/hooks";

import type { RequestArg } from "../api/types";
import { likelyKind, valueText, type Field, type FieldKind } from "../model/arg-values";

interface Props {
  arg: RequestArg;
  field: Field;
  /** What is wrong. Empty: nothing, or not yet checked. */
  fault: string;
  onChange: (field: Field) => void;
}

const LINE = 80; // Characters after which a field has several lines.

export function ArgField({ arg, field, fault, onChange }: Props) {
  const hasChosen = useRef(false);
  const id = `arg-${arg.Name}`;
  const isRequired = arg.Type === "required";
  const input = (text: string) => {
    // A list is most likely meant as a list, unless the user has said otherwise.
    onChange({ text, kind: hasChosen.current ? field.kind : likelyKind(text) });
  };
  const choose = (kind: FieldKind) => {
    hasChosen.current = true;
    onChange({ ...field, kind });
  };
  const isLong = field.text.length > LINE || field.text.includes("\n") || field.kind === "json";
  return (
    <div class="arg-field">
      <label for={id}>
        <span class="arg-name">{arg.Name}</span>{" "}
        <span class="quiet">{isRequired ? "required" : defaultText(arg)}</span>
      </label>
      {arg.Desc && (
        <p class="quiet" id={`${id}-about`}>
          {arg.Desc}
        </p>
      )}
      <div class="arg-input">
        <textarea
          id={id}
          name={arg.Name}
          rows={isLong ? 3 : 1}
          class={field.kind === "json" ? "is-json" : ""}
          value={field.text}
          spellcheck={false}
          autocomplete="off"
          aria-required={isRequired}
          aria-invalid={fault !== ""}
          aria-describedby={
            [arg.Desc && `${id}-about`, fault && `${id}-fault`].filter(Boolean).join(" ") || undefined
          }
          onInput={(event) => input(event.currentTarget.value)}
        />
        <select
          aria-label={`Kind of value of ${arg.Name}`}
          value={field.kind}
          onChange={(event) => choose(event.currentTarget.value as FieldKind)}
        >
          <option value="text">Text</option>
          <option value="json">JSON</option>
        </select>
      </div>
      {fault && (
        <p class="fault" id={`${id}-fault`}>
          {fault}
        </p>
      )}
    </div>
  );
}

function defaultText(arg: RequestArg): string {
  if (arg.Default === null) return "optional";
  const text = valueText(arg.Default);
  return text ? `optional, by default ${text}` : "optional, by default empty";
}
