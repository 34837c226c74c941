/** Runs long work in slices, so that the page draws and reacts in between. */

/** How long a slice may take, in milliseconds. With the drawing of a frame it must stay under 33. */
const SLICE = 12;

/** Runs a generator to its end, and returns what it returns. Returns null if the signal is aborted before. */
export async function inSlices<Result>(work: Generator<void, Result>, signal: AbortSignal): Promise<Result | null> {
  let end = performance.now() + SLICE;
  for (;;) {
    const { done, value } = work.next();
    if (done) return value;
    if (performance.now() < end) continue;
    await nextTask();
    if (signal.aborted) return null;
    end = performance.now() + SLICE;
  }
}

/** Waits until the browser has done what waits. A message is not delayed as a timer is. */
function nextTask(): Promise<void> {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}

/** Runs a generator to its end at once. */
export function atOnce<Result>(work: Generator<void, Result>): Result {
  for (;;) {
    const { done, value } = work.next();
    if (done) return value;
  }
}
