/** Searches jobs and boxes by their paths. */

import { isBox, pathOf, type Item, type Tree } from "./model.ts";

/** Returns the items whose own label has all words of a text, or, if there are none, those whose path has them. */
export function find(tree: Tree, text: string): Item[] {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length === 0) return [];
  const has = (place: string) => words.every((word) => place.includes(word));
  const all = itemsOf(tree);
  const byLabel = all.filter((item) => has(item.label.toLowerCase()));
  return byLabel.length ? byLabel : all.filter((item) => has(pathOf(item).join(" ").toLowerCase()));
}

/** Returns all boxes and jobs in the order in which they were built. */
function itemsOf(tree: Tree): Item[] {
  const found: Item[] = [];
  const open: Item[] = [tree.root];
  for (let item = open.pop(); item; item = open.pop()) {
    if (item.kind === "dot") continue;
    found.push(item);
    if (isBox(item)) for (let index = item.items.length - 1; index >= 0; index--) open.push(item.items[index] as Item);
  }
  return found;
}
