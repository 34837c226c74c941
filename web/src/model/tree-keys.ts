/** Moving in the tree by keyboard, as the ARIA practices describe for tree tables. */

import type { Row } from "./rows.ts";

export interface Move {
  index: number;
  /** Opens or closes the row where the move began. */
  isOpen?: boolean;
}

/** Returns where a key leads. Null: the key means nothing here. */
export function moved(rows: readonly Row[], index: number, key: string, pageSize: number): Move | null {
  const row = rows[index];
  if (!row) return null;
  const to = (wanted: number): Move => ({ index: Math.min(rows.length - 1, Math.max(0, wanted)) });
  switch (key) {
    case "ArrowDown":
      return to(index + 1);
    case "ArrowUp":
      return to(index - 1);
    case "PageDown":
      return to(index + Math.max(1, pageSize - 1));
    case "PageUp":
      return to(index - Math.max(1, pageSize - 1));
    case "Home":
      return to(0);
    case "End":
      return to(rows.length - 1);
    case "ArrowRight":
      if (row.node.job) return { index };
      return row.isOpen ? to(index + 1) : { index, isOpen: true };
    case "ArrowLeft":
      if (row.isOpen) return { index, isOpen: false };
      return to(parentOf(rows, index));
    default:
      return null;
  }
}

function parentOf(rows: readonly Row[], index: number): number {
  const parent = rows[index]?.node.parent;
  if (!parent) return index;
  for (let at = index - 1; at >= 0; at--) if (rows[at]?.node === parent) return at;
  return index;
}
