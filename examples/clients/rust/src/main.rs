//! Creates a request, follows it to its end, and prints its log.
//!
//! ```text
//! follow run TYPE [NAME=VALUE ...]
//! follow stop REQUEST_ID
//! ```
//!
//! connection.rs says which environment variables name the server.

mod connection;
#[allow(dead_code)] // The contracts contain more than this program uses.
mod spincycle {
    tonic::include_proto!("spincycle.v1");
}

use std::{env, error::Error, future::Future, process::ExitCode, time::Duration};

use anyhow::{Result, bail};
use prost_types::{Struct, Value, value::Kind};
use tokio::time::sleep;
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt;
use uuid::Uuid;

use connection::Client;
use spincycle::{
    CreateRequest, GetLogRequest, RequestListRequest, State, StopRequest, WatchRequest,
    WatchResponse,
};

/// The limit of one call. The stream of Watch has none.
const DEADLINE: Duration = Duration::from_secs(10);

/// The pause before a call is repeated.
const PAUSE: Duration = Duration::from_secs(1);

/// The number of tries of a call. Tonic ignores service configs, so this program repeats calls itself.
const TRIES: u32 = 5;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    match dispatch(&args).await {
        Ok(code) => code,
        Err(error) => {
            match error.downcast_ref::<Status>() {
                Some(status) => eprintln!("error {}: {}", reason_of(status), status.message()),
                None => eprintln!("error: {error:#}"),
            }
            ExitCode::FAILURE
        }
    }
}

async fn dispatch(args: &[String]) -> Result<ExitCode> {
    let client = connection::connect()?;
    match args {
        [command, kind, args @ ..] if command == "run" => run(&client, kind, args).await,
        [command, id] if command == "stop" => {
            let request = StopRequest {
                request_id: id.clone(),
            };
            // It is not repeated, because a second stop skips the finally jobs of the request.
            client.clone().stop(with_deadline(request)).await?;
            Ok(ExitCode::SUCCESS)
        }
        _ => bail!("usage: follow run TYPE [NAME=VALUE ...] | follow stop REQUEST_ID"),
    }
}

async fn run(client: &Client, kind: &str, args: &[String]) -> Result<ExitCode> {
    let id = create(client, kind, args).await?;
    println!("created {id}");
    let state = watch(client, &id).await?;
    print_log(client, &id).await?;
    Ok(if state == State::Complete {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Creates a request, and returns its id. All tries have one idempotency key, so they create one request.
async fn create(client: &Client, kind: &str, args: &[String]) -> Result<String> {
    let fields = args.iter().map(|arg| {
        let (name, value) = arg.split_once('=').unwrap_or((arg, ""));
        (
            name.into(),
            Value {
                kind: Some(Kind::StringValue(value.into())),
            },
        )
    });
    let request = CreateRequest {
        r#type: kind.into(),
        args: Some(Struct {
            fields: fields.collect(),
        }),
        idempotency_key: Some(Uuid::new_v4().to_string()),
        ..Default::default()
    };
    let created = retrying(|| {
        let (mut client, request) = (client.clone(), request.clone());
        async move { client.create(with_deadline(request)).await }
    })
    .await;
    if let Err(status) = &created
        && reason_of(status) == "UNKNOWN_REQUEST_TYPE"
    {
        print_types(client).await?;
    }
    Ok(created?.request.unwrap_or_default().id)
}

/// Prints what happens to a request until its end, and returns its final state. After a failure it
/// continues after the last message that it received.
async fn watch(client: &Client, id: &str) -> Result<State, Status> {
    let mut state = State::Unknown;
    let mut position = WatchRequest {
        request_id: id.into(),
        ..Default::default()
    };
    loop {
        match read_stream(client, &mut position, &mut state).await {
            Err(status) if is_temporary(&status) => sleep(PAUSE).await,
            ended => return ended.map(|()| state),
        }
    }
}

/// Reads one stream. It ends when the request has ended.
async fn read_stream(
    client: &Client,
    position: &mut WatchRequest,
    state: &mut State,
) -> Result<(), Status> {
    let mut messages = client.clone().watch(position.clone()).await?.into_inner();
    while let Some(message) = messages.message().await? {
        print(&message);
        if let Some(request) = message.requests.last() {
            *state = request.state();
        }
        position.cursor = message.cursor;
    }
    Ok(())
}

fn print(message: &WatchResponse) {
    for one in &message.tries {
        println!(
            "tried {}, try {}: {}",
            one.name,
            one.r#try,
            name_of(one.state())
        );
    }
    for one in &message.requests {
        println!(
            "{}, {} of {} jobs",
            name_of(one.state()),
            one.finished_jobs,
            one.total_jobs
        );
    }
}

/// Prints all tries of all jobs, page by page.
async fn print_log(client: &Client, id: &str) -> Result<(), Status> {
    let mut request = GetLogRequest {
        request_id: id.into(),
        ..Default::default()
    };
    loop {
        let page = retrying(|| {
            let (mut client, request) = (client.clone(), request.clone());
            async move { client.get_log(with_deadline(request)).await }
        })
        .await?;
        for entry in &page.entries {
            let state = name_of(entry.state());
            println!(
                "log {}, try {}: {state}, exit {}",
                entry.name, entry.r#try, entry.exit
            );
            for line in entry.stdout.lines().chain(entry.stderr.lines()) {
                println!("  {line}");
            }
        }
        if page.next_page_token.is_empty() {
            return Ok(());
        }
        request.page_token = page.next_page_token;
    }
}

async fn print_types(client: &Client) -> Result<(), Status> {
    let list = client
        .clone()
        .request_list(with_deadline(RequestListRequest {}))
        .await?
        .into_inner();
    for spec in list.specs {
        eprintln!("known type: {}", spec.name);
    }
    Ok(())
}

/// Repeats a call that is safe to repeat.
async fn retrying<T, F>(call: impl Fn() -> F) -> Result<T, Status>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    for _ in 1..TRIES {
        match call().await {
            Err(status) if is_temporary(&status) => sleep(PAUSE).await,
            ended => return ended.map(Response::into_inner),
        }
    }
    call().await.map(Response::into_inner)
}

fn with_deadline<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(DEADLINE);
    request
}

fn name_of(state: State) -> &'static str {
    state.as_str_name().trim_start_matches("STATE_")
}

/// Says whether a call that is safe to repeat may succeed later.
fn is_temporary(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded => true,
        // Tonic's code for a connection that breaks during an answer. Errors of the server have no source.
        Code::Unknown => status.source().is_some(),
        // The token file may have a new token.
        _ => reason_of(status) == "CREDENTIALS_ENDED",
    }
}

/// Returns the reason of an error, for example "UNKNOWN_REQUEST_TYPE". docs/errors.md lists all reasons.
/// The reason of an error that does not come from the server is its code.
fn reason_of(status: &Status) -> String {
    match status.get_details_error_info() {
        Some(info) => info.reason,
        None => format!("{:?}", status.code()),
    }
}
