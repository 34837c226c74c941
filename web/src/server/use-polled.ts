/** Answers that are asked for again and again, while the page can be seen. */

import { useEffect, useState } from "preact/hooks";

import type { ApiError } from "../api/call";

const PAUSE = 5000; // Milliseconds between two calls.

/** Returns the newest answer. Null: none yet. Errors do not remove it. */
export function usePolled<Answer>(
  ask: () => Promise<Answer>,
  onError: (error: ApiError) => void,
): Answer | null {
  const [answer, setAnswer] = useState<Answer | null>(null);
  useEffect(() => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    let isOver = false;
    const look = async () => {
      try {
        const newest = document.hidden ? null : await ask();
        if (isOver) return;
        if (newest !== null) setAnswer(newest);
      } catch (raised) {
        if (isOver) return;
        onError(raised as ApiError);
      }
      timer = setTimeout(() => void look(), PAUSE);
    };
    void look();
    return () => {
      isOver = true;
      clearTimeout(timer);
    };
  }, []);
  return answer;
}
