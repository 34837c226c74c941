/** The address of the page. It holds everything that a link must show again. */

import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";

export interface Address {
  path: string;
  query: URLSearchParams;
  hash: string;
}

const CHANGED = "spincycle-address";

function current(): Address {
  return { path: location.pathname, query: new URLSearchParams(location.search), hash: location.hash };
}

/** Goes to another address of the page, without loading it again. `replaces`: the way back leaves out this one. */
export function go(to: string, replaces = false): void {
  if (replaces) history.replaceState(null, "", to);
  else history.pushState(null, "", to);
  dispatchEvent(new Event(CHANGED));
}

export function useAddress(): Address {
  const [address, setAddress] = useState(current);
  useEffect(() => {
    const change = () => setAddress(current());
    for (const name of ["popstate", "hashchange", CHANGED]) addEventListener(name, change);
    return () => {
      for (const name of ["popstate", "hashchange", CHANGED]) removeEventListener(name, change);
    };
  }, []);
  return address;
}

interface LinkProps {
  to: string;
  children: ComponentChildren;
  class?: string;
  isCurrent?: boolean;
}

export function Link({ to, children, isCurrent, ...others }: LinkProps) {
  const follow = (event: MouseEvent) => {
    if (event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    go(to);
    if (!to.includes("#")) scrollTo(0, 0);
  };
  return (
    <a href={to} onClick={follow} aria-current={isCurrent ? "page" : undefined} {...others}>
      {children}
    </a>
  );
}
