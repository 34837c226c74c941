/** The address of the page. It holds everything that a link must show again. */

import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";

export interface Address {
  path: string;
  query: URLSearchParams;
}

const CHANGED = "spincycle-address";

function current(): Address {
  return { path: location.pathname, query: new URLSearchParams(location.search) };
}

/** Goes to another address of the page, without loading it again. */
export function go(to: string): void {
  history.pushState(null, "", to);
  dispatchEvent(new Event(CHANGED));
}

export function useAddress(): Address {
  const [address, setAddress] = useState(current);
  useEffect(() => {
    const change = () => setAddress(current());
    addEventListener("popstate", change);
    addEventListener(CHANGED, change);
    return () => {
      removeEventListener("popstate", change);
      removeEventListener(CHANGED, change);
    };
  }, []);
  return address;
}

export function Link({ to, children }: { to: string; children: ComponentChildren }) {
  const follow = (event: MouseEvent) => {
    if (event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    go(to);
  };
  return (
    <a href={to} onClick={follow} aria-current={location.pathname === to ? "page" : undefined}>
      {children}
    </a>
  );
}
