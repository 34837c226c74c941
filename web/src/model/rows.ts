/** Which nodes of the tree are visible: what is open, and what a filter lets through. */

import { FAIL, RUNNING } from "./states.ts";
import type { Summary } from "./summary.ts";
import { pathTo, type Tree, type TreeNode } from "./tree.ts";

/** More running sequences than this do not open by themselves, because rows would jump all the time. */
export const MOST_OPEN_RUNNING = 12;

export type Only = "all" | "failed" | "running";

export interface RowFilter {
  only: Only;
  /** Text that a part of the path contains. */
  text: string;
}

export interface Row {
  node: TreeNode;
  isOpen: boolean;
}

/**
 * Returns the visible rows in order.
 *
 * Args: `chosen` says which sequences a user has opened (true) or closed (false). The others are open if something
 * in them has failed or runs.
 */
export function visibleRows(
  tree: Tree,
  summaries: Map<string, Summary>,
  chosen: Map<string, boolean>,
  filter: RowFilter,
): Row[] {
  const shown = matching(tree, summaries, filter);
  const areRunningOpen = countRunning(tree, summaries) <= MOST_OPEN_RUNNING;
  const rows: Row[] = [];
  const closed = new Set<TreeNode>(); // The closed nodes, and all nodes in them.
  for (const node of tree.nodes) {
    if (node.parent && closed.has(node.parent)) {
      closed.add(node);
      continue;
    }
    if (shown && !shown.has(node)) continue;
    const isOpen = node.job === null && (chosen.get(node.key) ?? isOpenItself(node));
    rows.push({ node, isOpen });
    if (!isOpen) closed.add(node);
  }
  return rows;

  function isOpenItself(node: TreeNode): boolean {
    if (shown) return node.children.some((child) => shown.has(child));
    const state = summaries.get(node.key)?.state;
    return state === FAIL || (state === RUNNING && areRunningOpen);
  }
}

function countRunning(tree: Tree, summaries: Map<string, Summary>): number {
  let count = 0;
  for (const node of tree.nodes) {
    if (node.job === null && summaries.get(node.key)?.state === RUNNING) count++;
  }
  return count;
}

/** Returns the nodes that a filter lets through, with the nodes around them. Null: all. */
function matching(tree: Tree, summaries: Map<string, Summary>, filter: RowFilter): Set<TreeNode> | null {
  const text = filter.text.trim().toLowerCase();
  if (filter.only === "all" && !text) return null;
  const shown = new Set<TreeNode>();
  for (const node of tree.nodes) {
    if (node.job === null && !text) continue;
    const summary = summaries.get(node.key);
    if (filter.only === "failed" && !summary?.failed) continue;
    if (filter.only === "running" && !summary?.running) continue;
    if (text && !pathTo(node).join(" / ").toLowerCase().includes(text)) continue;
    for (let at: TreeNode | null = node; at && !shown.has(at); at = at.parent) shown.add(at);
  }
  return shown;
}
