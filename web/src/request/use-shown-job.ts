/** Shows the row of a job that was opened by a link. */

import type { RefObject } from "preact";
import { useEffect, useRef } from "preact/hooks";

import { HEAD_HEIGHT, ROW_HEIGHT } from "./job-row";
import type { Row } from "../model/rows";
import type { Tree, TreeNode } from "../model/tree";
import { showRow } from "../parts/virtual-list";

/** Opens what is around a job that was opened by a link, and scrolls to its row once. */
export function useShownJob(
  tree: Tree,
  jobId: string,
  rows: Row[],
  place: RefObject<HTMLElement>,
  onFound: (node: TreeNode) => void,
): void {
  const wanted = useRef("");
  useEffect(() => {
    const node = tree.byKey.get(jobId);
    wanted.current = node ? jobId : "";
    if (node) onFound(node);
  }, [tree, jobId]);
  useEffect(() => {
    if (!wanted.current || !place.current) return;
    const index = rows.findIndex((row) => row.node.key === wanted.current);
    if (index < 0) return;
    wanted.current = "";
    const { scrollTop, clientHeight } = place.current;
    const isVisible =
      index * ROW_HEIGHT >= scrollTop && (index + 1) * ROW_HEIGHT + HEAD_HEIGHT <= scrollTop + clientHeight;
    if (!isVisible) showRow(place.current, index, ROW_HEIGHT, "center", HEAD_HEIGHT);
  }, [rows]);
}
