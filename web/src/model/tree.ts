/** The tree of jobs by sequence. */

import type { Job, JobChain } from "../api/types.ts";
import { connects, isBody, isFinalPart, ownLabel, positions } from "./chain.ts";
import { limitsNote } from "./limits.ts";

export interface TreeNode {
  /** The id of the job, or of the sequence with "/" before it. */
  key: string;
  label: string;
  /** The job. Null: a sequence. */
  job: Job | null;
  parent: TreeNode | null;
  /** From 1, as in aria-level. */
  level: number;
  children: TreeNode[];
  /** The position of its first job in the order of the chain. */
  position: number;
  /** Whether it is the `finally` part of the sequence around it. */
  isFinally: boolean;
  /** The limits of a sequence, such as "at most 1 with host/web7"; empty for none. */
  limits: string;
}

export interface Tree {
  /** All nodes, each before its children. */
  nodes: TreeNode[];
  byKey: Map<string, TreeNode>;
  roots: TreeNode[];
}

export const EMPTY_TREE: Tree = { nodes: [], byKey: new Map(), roots: [] };

/**
 * Builds the tree of a chain. The outermost sequence is the request itself, and has no node. Jobs that only connect
 * others are left out, and so are sequences without other jobs. The body of a sequence with a `finally` is no level of
 * its own.
 */
export function buildTree(chain: JobChain): Tree {
  const order = positions(chain);
  const sequences = new Map<string, TreeNode | null>();
  const roots: TreeNode[] = [];

  const sequence = (id: string): TreeNode | null => {
    const known = sequences.get(id);
    if (known !== undefined) return known;
    const parentId = chain.jobs[id]?.parentSequenceId;
    if (!parentId) return null;
    if (isBody(chain, id)) {
      const around = sequence(parentId);
      sequences.set(id, around);
      return around;
    }
    const position = order.get(id) ?? Infinity;
    const node = newNode(`/${id}`, chain.pathLabels?.[id] ?? "sequence", null, position);
    node.isFinally = isFinalPart(chain, id);
    node.limits = limitsNote(chain.jobs[id]?.sequenceLimits);
    sequences.set(id, node);
    attach(node, sequence(parentId), roots);
    return node;
  };

  for (const job of Object.values(chain.jobs)) {
    if (connects(job)) continue;
    const own = ownLabel(chain, job);
    const label = own ? `${own} / ${job.name}` : job.name;
    attach(newNode(job.id, label, job, order.get(job.id) ?? Infinity), sequence(job.sequenceId), roots);
  }
  const nodes = sorted(roots);
  return { nodes, roots, byKey: new Map(nodes.map((node) => [node.key, node])) };
}

function newNode(key: string, label: string, job: Job | null, position: number): TreeNode {
  return { key, label, job, parent: null, level: 1, children: [], position, isFinally: false, limits: "" };
}

function attach(node: TreeNode, parent: TreeNode | null, roots: TreeNode[]): void {
  node.parent = parent;
  (parent?.children ?? roots).push(node);
}

/** Sorts all lists of nodes, sets their levels, and returns all nodes, each before its children. */
function sorted(roots: TreeNode[]): TreeNode[] {
  const nodes: TreeNode[] = [];
  const left: TreeNode[] = [];
  const add = (list: TreeNode[]) => {
    list.sort((one, other) => one.position - other.position || (one.key < other.key ? -1 : 1));
    for (let index = list.length - 1; index >= 0; index--) left.push(list[index] as TreeNode);
  };
  add(roots);
  for (let node = left.pop(); node; node = left.pop()) {
    nodes.push(node);
    for (const child of node.children) child.level = node.level + 1;
    add(node.children);
  }
  return nodes;
}

/** Returns the parts of a node's path, below the request. */
export function pathTo(node: TreeNode): string[] {
  const parts: string[] = [];
  for (let at: TreeNode | null = node; at; at = at.parent) parts.push(at.label);
  return parts.reverse();
}
