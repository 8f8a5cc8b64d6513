//! A client of the operator's API.

use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Body;
use axum::http::uri::PathAndQuery;
use axum::http::{Method, Request, StatusCode, Uri, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::net::TcpStream;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most bytes that are read of an answer.
const MAX_ANSWER_BYTES: usize = 32 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum ClientError {
    #[error("--admin: allowed is http://host:port, not {0:?}")]
    Address(String),
    #[error("--token-file {0}: {1}")]
    Token(PathBuf, std::io::Error),
    #[error("--token-file {0}: holds no token")]
    NoToken(PathBuf),
    #[error(
        "{0} does not answer: {1}\n  --admin names another process; through Kubernetes: kubectl port-forward POD 6070"
    )]
    Unreachable(String, String),
    #[error("{0} did not answer within {PATIENCE:?}")]
    Late(String),
    #[error("{status}: {detail}")]
    Refused { status: StatusCode, detail: String },
    #[error("--envoy {0}: {1}")]
    Envoy(PathBuf, String),
    #[error("nothing was reset: no terminal to ask at; --yes resets without asking")]
    Unconfirmed,
    #[error(
        "the search is not complete: the process ended it before it had looked at all keys; {0} counters were reset, and others may fit"
    )]
    Incomplete(u64),
    #[error("the answer is not JSON; is this sluicegate's admin port?")]
    NotJson,
}

/// One process' API.
pub(in crate::cli) struct Client {
    authority: String,
    token: Option<String>,
}

impl Client {
    pub fn new(admin: &str, token_file: Option<&Path>) -> Result<Self, ClientError> {
        let bad = || ClientError::Address(admin.to_owned());
        let uri: Uri = admin.parse().map_err(|_| bad())?;
        let is_root = uri
            .path_and_query()
            .is_none_or(|path| path == &PathAndQuery::from_static("/"));
        let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http") && is_root);
        let mut authority = authority.ok_or_else(bad)?.to_string();
        if uri.port().is_none() {
            authority.push_str(":80");
        }
        let token = token_file.map(|path| {
            let text = std::fs::read_to_string(path).map_err(|error| ClientError::Token(path.to_owned(), error))?;
            let token = text.trim();
            let fits = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
            fits.then(|| token.to_owned())
                .ok_or_else(|| ClientError::NoToken(path.to_owned()))
        });
        Ok(Self {
            authority,
            token: token.transpose()?,
        })
    }

    pub async fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.ask(Method::GET, path, Body::empty()).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        self.ask(Method::POST, path, Body::from(body.to_string())).await
    }

    async fn ask(&self, method: Method, path: &str, body: Body) -> Result<Value, ClientError> {
        let exchange = tokio::time::timeout(PATIENCE, self.exchange(method, path, body));
        let (status, bytes) = exchange
            .await
            .map_err(|_| ClientError::Late(self.authority.clone()))?
            .map_err(|error| ClientError::Unreachable(self.authority.clone(), error.to_string()))?;
        let answer: Result<Value, _> = serde_json::from_slice(&bytes);
        if status.is_success() {
            return answer.map_err(|_| ClientError::NotJson);
        }
        let detail = answer
            .ok()
            .and_then(|problem| problem["detail"].as_str().map(super::table::shown));
        let mut detail = detail.unwrap_or_default();
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            detail.push_str("\n  --token-file (or ADMIN_TOKEN_FILE) names the file that holds the admin token");
        }
        Err(ClientError::Refused { status, detail })
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Body,
    ) -> Result<(StatusCode, axum::body::Bytes), Box<dyn std::error::Error + Send + Sync>> {
        let stream = TcpStream::connect(&self.authority).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.authority)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONNECTION, "close");
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let answer = sender.send_request(request.body(body)?).await?;
        let status = answer.status();
        let bytes = axum::body::to_bytes(Body::new(answer.into_body()), MAX_ANSWER_BYTES).await?;
        driver.abort();
        Ok((status, bytes))
    }
}

/// A path with a query.
pub(in crate::cli) fn with_query<'q>(path: &str, query: impl IntoIterator<Item = (&'q str, &'q str)>) -> String {
    let encode = |(name, value)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC));
    let query: Vec<String> = query.into_iter().map(encode).collect();
    format!("{path}?{}", query.join("&"))
}
