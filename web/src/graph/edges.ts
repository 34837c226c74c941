/** The edges between the items of one box, while they change. */

const NONE: readonly number[] = [];

/** The items at the other ends of an item's edges. Removed items are taken out when the list is next read. */
interface Ends {
  items: number[];
  live: number;
}

export class Edges {
  private readonly ins: (Ends | undefined)[] = [];
  private readonly outs: (Ends | undefined)[] = [];
  private readonly removed: (true | undefined)[] = [];
  /** The number of edges that were added. */
  count = 0;

  add(from: number, to: number): void {
    if (from === to) return;
    push(this.outs, from, to);
    push(this.ins, to, from);
    this.count++;
  }

  /** Returns the items with an edge to an item. */
  before(item: number): readonly number[] {
    return this.live(this.ins[item]);
  }

  /** Returns the items that an item has an edge to. */
  after(item: number): readonly number[] {
    return this.live(this.outs[item]);
  }

  /** Returns the only item that an item has an edge to, or undefined. */
  onlyAfter(item: number): number | undefined {
    const after = this.after(item);
    return after.length === 1 ? after[0] : undefined;
  }

  isRemoved(item: number): boolean {
    return this.removed[item] === true;
  }

  /** Removes an item and its edges. */
  remove(item: number): void {
    for (const before of this.before(item)) (this.outs[before] as Ends).live--;
    for (const after of this.after(item)) (this.ins[after] as Ends).live--;
    this.ins[item] = this.outs[item] = undefined;
    this.removed[item] = true;
  }

  /** Removes an item, and links what was before it to what was after it. Returns how many edges it added. */
  bridge(item: number): number {
    const before = this.before(item);
    const after = this.after(item);
    this.remove(item);
    for (const from of before) for (const to of after) this.add(from, to);
    return before.length * after.length;
  }

  private live(ends: Ends | undefined): readonly number[] {
    if (!ends) return NONE;
    if (ends.items.length !== ends.live) ends.items = ends.items.filter((item) => !this.removed[item]);
    return ends.items;
  }
}

function push(lists: (Ends | undefined)[], item: number, end: number): void {
  const ends = lists[item];
  if (!ends) {
    lists[item] = { items: [end], live: 1 };
    return;
  }
  ends.items.push(end);
  ends.live++;
}
