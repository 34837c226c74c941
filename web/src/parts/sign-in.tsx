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
      <h1>Sign in to Spin Cycle</h1>
      {error && (
        <p class="notice notice-error" role="alert">
          {error}
        </p>
      )}
      {session.needsTls && (
        <p class="notice notice-error">Signing in needs https. Open this page with https.</p>
      )}
      {session.signIn.length === 0 && !session.needsTls && (
        <p class="notice">
          This server identifies you by a certificate or a proxy, and has not recognized you.
        </p>
      )}
      {session.signIn.includes("oidc") && (
        <a class="button primary" href={`/web/sign-in/oidc?return=${back}`}>
          Sign in at your identity provider
        </a>
      )}
      {session.signIn.includes("token") && (
        <form onSubmit={submit}>
          <label for="token">API token</label>
          <input id="token" name="token" type="password" autocomplete="off" required />
          <button class={session.signIn.includes("oidc") ? "" : "primary"}>Sign in</button>
        </form>
      )}
    </main>
  );
}
