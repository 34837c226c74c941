/** Components in scripts of their own, which are loaded when they are first shown. */

import { h, type ComponentType } from "preact";
import { useEffect, useState } from "preact/hooks";

export function lazy<Props extends object>(load: () => Promise<ComponentType<Props>>): ComponentType<Props> {
  let loaded: ComponentType<Props> | null = null;
  return function Lazy(props: Props) {
    const [, draw] = useState(0);
    const [hasFailed, setFailed] = useState(false);
    useEffect(() => {
      if (loaded) return;
      load().then(
        (component) => {
          loaded = component;
          draw(1);
        },
        () => setFailed(true),
      );
    }, []);
    if (loaded) return h(loaded, props as never);
    // After an upgrade of the server, an old page asks for files that no longer exist.
    if (hasFailed) return <p role="alert">This part of the page could not be loaded. Load the page again.</p>;
    return <p role="status">Loading…</p>;
  };
}
