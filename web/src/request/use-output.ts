/** Follows the output of a try. */

import { useEffect, useState } from "preact/hooks";

import type { ApiError } from "../api/call";
import { Stream, type Connection } from "../api/stream";
import type { OutputMessage } from "../api/types";
import { OutputLines } from "../model/output-lines";

const PAUSE = 100; // Milliseconds between two drawings.

export interface Followed {
  output: OutputLines;
  version: number;
  connection: Connection;
  error: string;
}

export function useOutput(path: string, probe: string): Followed {
  const [followed, setFollowed] = useState<Followed>(() => ({
    output: new OutputLines(),
    version: 0,
    connection: "connecting",
    error: "",
  }));
  useEffect(() => {
    const output = new OutputLines();
    let timer: ReturnType<typeof setTimeout> | undefined;
    let state: { connection: Connection; error: string } = { connection: "connecting", error: "" };
    const draw = () => {
      timer ??= setTimeout(() => {
        timer = undefined;
        setFollowed(({ version }) => ({ output, version: version + 1, ...state }));
      }, PAUSE);
    };
    const stream = new Stream<OutputMessage>(path, probe, {
      onMessage: (message) => {
        output.add(message);
        if (output.isFull) stream.close();
        draw();
      },
      onConnection: (connection) => {
        state = { ...state, connection };
        draw();
      },
      onError: (error: ApiError) => {
        state = { ...state, error: error.message };
        draw();
      },
    });
    return () => {
      stream.close();
      clearTimeout(timer);
    };
  }, [path]);
  return followed;
}
