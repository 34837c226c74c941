/** Starts the page: asks who is signed in, and shows the view of the address. */

import { render } from "preact";
import { useEffect, useState } from "preact/hooks";

import { ApiError, call, type OnError } from "./api/call";
import type { Caller, Session } from "./api/types";
import { Link, useAddress, type Address } from "./parts/address";
import { Boundary } from "./parts/boundary";
import { CallerContext } from "./parts/caller";
import { SignIn } from "./parts/sign-in";
import { ThemeButton } from "./parts/theme";
import { RequestList } from "./list/request-list";
import { RequestPage } from "./request/request-page";
import { StartPage } from "./start/start-page";
import { RunnersPage } from "./server/runners-page";
import { ServerPage } from "./server/server-page";
import { WaitingPage } from "./waiting/waiting-page";

const PAUSE = 3000; // Milliseconds before the session is asked for again, if the server did not answer.

function Page() {
  const address = useAddress();
  const [session, setSession] = useState<Session | null>(null);
  const [caller, setCaller] = useState<Caller | null>(null);
  const [error, setError] = useState("");

  const ask = async () => {
    try {
      const { body } = await call<Session>("/web/session");
      if (!body.authentication || body.signedIn) setCaller((await call<Caller>("/api/v1/caller")).body);
      setSession(body);
      setError("");
    } catch (raised) {
      const error = raised as ApiError;
      setError(error.message);
      if (error.isTemporary) setTimeout(() => void ask(), PAUSE);
    }
  };
  useEffect(() => void ask(), []);

  // An error belongs to the view in which it happened.
  useEffect(() => setError(""), [address.path, address.query.toString()]);

  const onError: OnError = (raised) => (raised?.needsSignIn ? void ask() : setError(raised?.message ?? ""));
  if (session === null) {
    return (
      <main>
        <p role="status">{error || "Loading…"}</p>
      </main>
    );
  }
  if (session.authentication && !session.signedIn)
    return <SignIn session={session} onDone={() => void ask()} />;
  return (
    <CallerContext.Provider value={caller}>
      <a class="skip" href="#main">
        Skip to the content
      </a>
      <Top address={address} session={session} onSignedOut={() => void ask()} onError={onError} />
      <main id="main" tabIndex={-1}>
        {error && (
          <p class="notice notice-error" role="alert">
            {error}
          </p>
        )}
        <Boundary key={address.path}>
          <View address={address} onError={onError} />
        </Boundary>
      </main>
    </CallerContext.Provider>
  );
}

interface TopProps {
  address: Address;
  session: Session;
  onSignedOut: () => void;
  onError: OnError;
}

const VIEWS = [
  ["/requests", "Requests"],
  ["/start", "New request"],
  ["/waiting", "Waiting"],
  ["/runners", "Runners"],
  ["/server", "Server"],
] as const;

function Top({ address, session, onSignedOut, onError }: TopProps) {
  const signOut = () => call("/web/sign-out", { method: "POST" }).then(onSignedOut, onError);
  return (
    <header class="top">
      <Link to="/requests" class="brand">
        Spin Cycle
      </Link>
      <nav aria-label="Views">
        {VIEWS.map(([path, name]) => (
          <Link key={path} to={path} isCurrent={address.path === path}>
            {name}
          </Link>
        ))}
      </nav>
      <div class="top-end">
        {session.user && <span class="quiet">{session.user}</span>}
        {session.expiresAt !== null && <button onClick={() => void signOut()}>Sign out</button>}
        <ThemeButton />
      </div>
    </header>
  );
}

function View({ address, onError }: { address: Address; onError: OnError }) {
  const [, view, rest] = address.path.split("/");
  if (view === "requests" && rest)
    return <RequestPage key={rest} id={decodeURIComponent(rest)} address={address} onError={onError} />;
  if (view === "waiting")
    return <WaitingPage limit={address.query.get("limit") ?? ""} onError={onError} />;
  if (view === "runners") return <RunnersPage onError={onError} />;
  if (view === "server") return <ServerPage onError={onError} />;
  if (view === "start") {
    const type = decodeURIComponent(rest ?? "");
    return <StartPage type={type} from={address.query.get("from") ?? ""} onError={onError} />;
  }
  return <RequestList query={address.query} onError={onError} />;
}

const place = document.getElementById("page");
if (place) render(<Page />, place);
