/** A dialog that asks before something is done. */

import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";

import type { ApiError } from "../api/call";

interface Props {
  title: string;
  children: ComponentChildren;
  /** What the button says that does it. */
  verb: string;
  isDangerous?: boolean;
  onConfirm: () => Promise<void>;
  onClose: () => void;
}

export function ConfirmDialog({ title, children, verb, isDangerous, onConfirm, onClose }: Props) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [error, setError] = useState("");
  const [isBusy, setBusy] = useState(false);
  useEffect(() => dialog.current?.showModal(), []);
  const confirm = (event: Event) => {
    event.preventDefault();
    setBusy(true);
    setError("");
    onConfirm().then(onClose, (raised: ApiError) => {
      setBusy(false);
      setError(raised.message);
    });
  };
  return (
    <dialog ref={dialog} onClose={onClose} aria-labelledby="dialog-title">
      <form onSubmit={confirm}>
        <h2 id="dialog-title">{title}</h2>
        {children}
        {error && (
          <p class="notice notice-error" role="alert">
            {error}
          </p>
        )}
        <div class="dialog-buttons">
          <button type="button" onClick={() => dialog.current?.close()}>
            Cancel
          </button>
          <button class={isDangerous ? "danger" : "primary"} disabled={isBusy}>
            {isBusy ? "Working…" : verb}
          </button>
        </div>
      </form>
    </dialog>
  );
}
