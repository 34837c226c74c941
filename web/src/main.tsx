/** Starts the page: asks who is signed in, and shows the view of the address. */

import { render } from "preact";
import { useEffect, useState } from "preact/hooks";

import { ApiError, call, type Session } from "./api";
import { Link, useAddress } from "./address";
import { Requests } from "./requests";
import { Runners } from "./runners";
import { SignIn } from "./sign-in";

function Page() {
  const address = useAddress();
  const [session, setSession] = useState<Session | null>(null);
  const [error, setError] = useState("");

  const ask = () => {
    call<Session>("/web/session").then(
      ({ body }) => {
        setSession(body);
        setError("");
      },
      (raised: ApiError) => setError(raised.message),
    );
  };
  useEffect(ask, []);

  const onError = (raised: ApiError) => (raised.needsSignIn ? ask() : setError(raised.message));
  if (session === null) return <p role="status">{error || "Loading..."}</p>;
  if (session.authentication && !session.signedIn) return <SignIn session={session} onDone={ask} />;
  const signOut = () => call("/web/sign-out", { method: "POST" }).then(ask, onError);
  return (
    <>
      <header>
        <nav>
          <Link to="/requests">Requests</Link>
          <Link to="/runners">Runners</Link>
        </nav>
        <span>{session.user}</span>
        {session.expiresAt !== null && <button onClick={signOut}>Sign out</button>}
      </header>
      <main>
        {error && <p role="alert">{error}</p>}
        {address.path === "/runners" ? (
          <Runners onError={onError} />
        ) : (
          <Requests query={address.query} onError={onError} />
        )}
      </main>
    </>
  );
}

const place = document.getElementById("page");
if (place) render(<Page />, place);
