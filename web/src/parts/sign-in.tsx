/** Sign-in by API token, or at the OIDC provider. */

import { useState } from "preact/hooks";

import { ApiError, call } from "../api/call";
import type { Session } from "../api/types";

export function SignIn({ session, onDone }: { session: Session; onDone: () => void }) {
  const [error, setError] = useState("");
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    const form = event.currentTarget as HTMLFormElement;
    const token = String(new FormData(form).get("token") ?? "").trim();
    form.reset();
    call("/web/sign-in", { method: "POST", headers: { Authorization: `Bearer ${token}` } }).then(
      onDone,
      (raised: ApiError) => setError(raised.message),
    );
  };
  const back = encodeURIComponent(location.pathname + location.search);
  return (
    <main class="sign-in">
      <h1>Spin Cycle</h1>
      {error && <p role="alert">{error}</p>}
      {session.needsTls && <p>Signing in needs https.</p>}
      {session.signIn.includes("oidc") && (
        <p>
          <a href={`/web/sign-in/oidc?return=${back}`}>Sign in at your identity provider</a>
        </p>
      )}
      {session.signIn.includes("token") && (
        <form onSubmit={submit}>
          <label>
            API token <input name="token" type="password" autocomplete="off" required />
          </label>
          <button>Sign in</button>
        </form>
      )}
    </main>
  );
}
