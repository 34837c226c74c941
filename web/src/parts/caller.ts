/** Who uses the page, and what this user may do. */

import { createContext } from "preact";
import { useContext } from "preact/hooks";

import type { Caller } from "../api/types";

export const CallerContext = createContext<Caller | null>(null);

export function useCaller(): Caller | null {
  return useContext(CallerContext);
}

/** Whether a user may do something with requests of a type. The server checks each call anyway. */
export function may(caller: Caller | null, type: string, operation: string): boolean {
  const found = caller?.permissions.find((entry) => entry.type === type);
  return found ? found.operations.includes(operation) : (caller?.isAdmin ?? false);
}
