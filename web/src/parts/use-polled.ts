/** Answers that are asked for again and again, while the page can be seen. */

import { useEffect, useState } from "preact/hooks";

import type { ApiError, OnError } from "../api/call";

const PAUSE = 5000; // Milliseconds between two calls.

/** Returns the newest answer. Null: none yet. Errors do not remove it. */
export function usePolled<Answer>(ask: () => Promise<Answer>, onError: OnError): Answer | null {
  const [answer, setAnswer] = useState<Answer | null>(null);
  useEffect(() => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    let isOver = false;
    let hasFailed = false;
    const look = async () => {
      try {
        const newest = document.hidden ? null : await ask();
        if (isOver) return;
        if (newest !== null) setAnswer(newest);
        if (hasFailed) onError(null);
        hasFailed = false;
      } catch (raised) {
        if (isOver) return;
        hasFailed = true;
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
