use std::{env, fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use tonic::{
    Request, Status,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

use crate::spincycle::request_manager_client::RequestManagerClient;

pub type Client = RequestManagerClient<InterceptedService<Channel, TokenFile>>;

/// Opens a channel to `$SPINC_ADDR`. `$SPINC_CA`, a PEM file, turns on TLS, and `$SPINC_TOKEN_FILE`
/// has the token of the user. The channel connects with the first call.
pub fn connect() -> Result<Client> {
    let address = env::var("SPINC_ADDR").unwrap_or_else(|_| "localhost:32318".into());
    let ca = env::var_os("SPINC_CA");
    let token = TokenFile(env::var_os("SPINC_TOKEN_FILE").map(PathBuf::from));
    let scheme = if ca.is_some() { "https" } else { "http" };
    let mut endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))?
        .connect_timeout(Duration::from_secs(10))
        // Notice within 40 seconds that a server is gone, although the connection is not closed.
        .http2_keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10));
    if let Some(path) = ca {
        let pem = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
        endpoint = endpoint.tls_config(tls)?;
    } else {
        ensure!(token.0.is_none(), "a token needs TLS: set SPINC_CA");
    }
    Ok(RequestManagerClient::with_interceptor(
        endpoint.connect_lazy(),
        token,
    ))
}

/// Sends the token in a file, if there is one. The file is read for each call, so the token may change.
#[derive(Clone)]
pub struct TokenFile(Option<PathBuf>);

impl Interceptor for TokenFile {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(path) = &self.0 {
            let token = fs::read_to_string(path).map_err(|error| {
                Status::unauthenticated(format!("no token in {}: {error}", path.display()))
            })?;
            let value = format!("Bearer {}", token.trim())
                .parse()
                .map_err(|_| Status::unauthenticated("the token is malformed"))?;
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }
}
