//! A client of the operator's API.

use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Body;
use axum::http::uri::PathAndQuery;
use axum::http::{Method, Request, StatusCode, Uri, header};
use hyper::client::conn::http1;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tower::Service;

use crate::tls::dial::Dialer;
use crate::tls::{ClientTls, TlsError, plain_client_config};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most bytes that are read of an answer.
const MAX_ANSWER_BYTES: usize = 32 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum ClientError {
    #[error("--admin: allowed is http://host:port, or https://host:port{0}")]
    Address(String),
    #[error(
        "--admin-tls-ca and --admin-tls-san (or ADMIN_TLS_CACERT and ADMIN_TLS_SAN) need --admin https://host:port"
    )]
    NoTls,
    #[error("--admin {0}: {1}")]
    Tls(String, TlsError),
    #[error("--token-file {0}: {1}")]
    Token(PathBuf, std::io::Error),
    #[error("--token-file {0}: holds no token")]
    NoToken(PathBuf),
    #[error("{0} does not answer: {1}\n  {2}")]
    Unreachable(String, String, &'static str),
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

/// What may help against an answer that does not come.
const ANOTHER: &str = "--admin names another process; through Kubernetes: kubectl port-forward POD 6070";
const UNTRUSTED: &str = "--admin-tls-ca (or ADMIN_TLS_CACERT) names the CA of its certificate, --admin-tls-san (or \
                         ADMIN_TLS_SAN) the name in it, if it is not the host's";
const NO_TLS: &str = "does this port speak TLS? If not: --admin http://…";

/// One process' API.
pub(in crate::cli) struct Client {
    authority: String,
    dialer: Dialer,
    token: Option<String>,
}

/// The host and port that `--admin` names, and whether TLS is spoken there.
fn address(admin: &str) -> Result<(String, bool), ClientError> {
    // Never the text itself: it may have a password in it.
    let bad = |hint: String| ClientError::Address(hint);
    if admin.contains('@') {
        let hint = "; the token is no part of it: --token-file (or ADMIN_TOKEN_FILE) names its file";
        return Err(bad(hint.to_owned()));
    }
    let Some((scheme, _)) = admin.split_once("://") else {
        return Err(bad(format!("; write http://{admin}")));
    };
    let uri: Uri = admin.parse().map_err(|_| bad(format!(", not {admin:?}")))?;
    let is_root = uri
        .path_and_query()
        .is_none_or(|path| path == &PathAndQuery::from_static("/"));
    let (true, "http" | "https", Some(authority)) = (is_root, scheme, uri.authority()) else {
        return Err(bad(format!(", not {admin:?}")));
    };
    let is_tls = scheme == "https";
    let mut authority = authority.to_string();
    if uri.port().is_none() {
        authority.push_str(if is_tls { ":443" } else { ":80" });
    }
    Ok((authority, is_tls))
}

impl Client {
    /// Needs a tokio runtime.
    pub fn new(admin: &str, tls: &ClientTls, token_file: Option<&Path>) -> Result<Self, ClientError> {
        let (authority, is_tls) = address(admin)?;
        if !is_tls && *tls != ClientTls::default() {
            return Err(ClientError::NoTls);
        }
        let load = |tls: &ClientTls| plain_client_config(tls, false);
        let dialer = Dialer::new("--admin-tls-ca", &authority, is_tls.then_some(tls), load)
            .map_err(|error| ClientError::Tls(admin.to_owned(), error))?;
        let token = token_file.map(|path| {
            let text = std::fs::read_to_string(path).map_err(|error| ClientError::Token(path.to_owned(), error))?;
            let token = text.trim();
            let fits = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
            fits.then(|| token.to_owned())
                .ok_or_else(|| ClientError::NoToken(path.to_owned()))
        });
        Ok(Self {
            authority,
            dialer,
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
            .map_err(|error| self.unreachable(&*error))?;
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

    fn unreachable(&self, error: &(dyn std::error::Error + Send + Sync + 'static)) -> ClientError {
        let cause = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let hint = match cause.and_then(|cause| cause.downcast_ref()) {
            Some(rustls::Error::InvalidMessage(_)) => NO_TLS,
            Some(_) => UNTRUSTED,
            None => ANOTHER,
        };
        ClientError::Unreachable(self.authority.clone(), error.to_string(), hint)
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Body,
    ) -> Result<(StatusCode, axum::body::Bytes), Box<dyn std::error::Error + Send + Sync>> {
        let stream = self.dialer.clone().call(Uri::default()).await?;
        let (mut sender, connection) = http1::handshake(stream).await?;
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
