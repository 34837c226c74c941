"""Creates a request, follows it to its end, and prints its log.

    python follow.py run TYPE [NAME=VALUE ...]
    python follow.py stop REQUEST_ID

$SPINC_ADDR is the server's address. $SPINC_CA, a PEM file, turns on TLS, and $SPINC_TOKEN_FILE has the token
of the user.
"""

import os
import sys
from pathlib import Path

from spincycle_grpc import Client, SpinCycleError, State, tls_credentials
from spincycle_grpc.v1.job_log_pb2 import JobLog

DEADLINE = 30.0
"""Seconds that a call may take with its retries, and that a watched server may be away."""


def connect() -> Client:
    """Returns a client. It connects with the first call, and repeats calls that are safe to repeat."""
    address = os.environ.get("SPINC_ADDR", "localhost:32318")
    ca, token_file = os.environ.get("SPINC_CA"), os.environ.get("SPINC_TOKEN_FILE")
    return Client(
        address,
        deadline=DEADLINE,
        credentials=tls_credentials(ca=ca) if ca else None,
        # The file is read for each call, so the token may change.
        token=(lambda: Path(token_file).read_text().strip()) if token_file else None,
    )


def run(client: Client, request_type: str, args: list[str]) -> int:
    """Creates a request, follows it, and prints its log. Returns the exit status."""
    try:
        # The client makes an idempotency key, so all of its tries create one request.
        request = client.create(request_type, dict(arg.split("=", 1) for arg in args))
    except SpinCycleError as error:
        if error.reason == "UNKNOWN_REQUEST_TYPE":
            for spec in client.request_list():
                print("known type:", spec.name, file=sys.stderr)
        raise
    print("created", request.id, flush=True)
    state = watch(client, request.id)
    print_log(client, request.id)
    return 0 if state is State.COMPLETE else 1


def watch(client: Client, request_id: str) -> State:
    """Prints what happens to a request until its end. Returns its final state.

    If the stream breaks, the client opens another one that continues after the last message.
    """
    state = State.UNKNOWN
    for message in client.watch(request_id):
        for entry in message.tries:
            print(f"tried {name_of(entry)}: {State(entry.state).name}", flush=True)
        for request in message.requests:
            state = State(request.state)
            print(f"{state.name}, {request.finished_jobs} of {request.total_jobs} jobs", flush=True)
    return state


def print_log(client: Client, request_id: str) -> None:
    """Prints all tries of all jobs."""
    for entry in client.log(request_id):
        print(f"log {name_of(entry)}: {State(entry.state).name}, exit {entry.exit}")
        for line in entry.stdout.splitlines() + entry.stderr.splitlines():
            print(f"  {line}")


def name_of(entry: JobLog) -> str:
    """Returns the job and the number of a try."""
    return f"{entry.name}, try {getattr(entry, 'try')}"  # `try` is a keyword


def main(arguments: list[str]) -> int:
    """Runs a command. Returns the exit status."""
    try:
        with connect() as client:
            match arguments:
                case ["run", request_type, *args]:
                    return run(client, request_type, args)
                case ["stop", request_id]:
                    client.stop(request_id)
                    return 0
    except SpinCycleError as error:
        print(f"error {error.reason}: {error}", file=sys.stderr)
        return 1
    print("usage: follow.py run TYPE [NAME=VALUE ...] | follow.py stop REQUEST_ID", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
