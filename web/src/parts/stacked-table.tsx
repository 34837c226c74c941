/** A table whose rows become blocks in a narrow window. */

import type { ComponentChildren } from "preact";

interface Props {
  label: string;
  columns: readonly string[];
  /** The columns of numbers. */
  numbers?: ReadonlySet<string>;
  /** The rows. */
  children: ComponentChildren;
}

export function StackedTable({ label, columns, numbers, children }: Props) {
  return (
    <div class="table-place" tabIndex={0} role="region" aria-label={label}>
      <table class="stacked">
        <thead>
          <tr>
            {columns.map((name) => (
              <th key={name} scope="col" class={numbers?.has(name) ? "number" : ""}>
                {name || <span class="hidden">Action</span>}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>{children}</tbody>
      </table>
    </div>
  );
}
