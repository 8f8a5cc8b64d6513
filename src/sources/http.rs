//! A URL, asked at intervals; an ETag spares reading again what has not changed.

use std::time::Duration;

use axum::body::Body;
use futures::StreamExt;
use http::header::{ETAG, IF_NONE_MATCH, USER_AGENT};
use http::{HeaderValue, Request, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::config::plans::file::MAX_BYTES;
use crate::config::plans::lines::SourceLines;
use crate::rules::plans::PlanRows;
use crate::tls::dial::{Dialer, with_causes};
use crate::tls::{ClientTls, plain_client_config};

use super::state::SourceState;

/// Longest time of one answer, with its body.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest time without any part of an answer.
const SILENCE: Duration = Duration::from_secs(10);
/// Between two looks whether the source is to be read again at once.
const STEP: Duration = Duration::from_millis(250);

/// What an answer came to.
enum UrlAnswer {
    Read(Box<PlanRows>, KnownBody),
    Unchanged,
}

/// The answer that is in force: the next one may be the same, with an ETag or without.
struct KnownBody {
    tag: Option<HeaderValue>,
    hash: blake3::Hash,
}

/// Keeps the table as the URL answers, until `stop`.
pub(super) fn read(state: &SourceState, url: &str, every: Duration, stop: &CancellationToken) {
    state.block_on(ask_on(state, url, every, stop));
}

async fn ask_on(state: &SourceState, url: &str, every: Duration, stop: &CancellationToken) {
    let client = match client(url) {
        Ok(client) => client,
        Err(error) => return state.done(Err(error)),
    };
    let mut known = None;
    while !stop.is_cancelled() {
        if state.take_reread() {
            known = None;
        }
        let asked = timeout(PATIENCE, ask(state, &client, url, known.as_ref()));
        let answer = tokio::select! {
            answer = asked => answer.unwrap_or_else(|_| Err(format!("no whole answer within {} s", PATIENCE.as_secs()))),
            () = stop.cancelled() => return,
        };
        match answer {
            Ok(UrlAnswer::Read(rows, new)) => {
                state.done(Ok(*rows));
                known = Some(new);
            }
            Ok(UrlAnswer::Unchanged) => state.unchanged(),
            Err(error) => state.done(Err(error)),
        }
        let mut left = every;
        while !left.is_zero() && !stop.is_cancelled() && !state.needs_reread() {
            let step = left.min(STEP);
            sleep(step).await;
            left -= step;
        }
    }
}

fn client(url: &str) -> Result<Client<Dialer, Body>, String> {
    let uri: Uri = url.parse().map_err(|error| format!("{error}"))?;
    let is_tls = uri.scheme_str() == Some("https");
    let host = uri.host().unwrap_or_default();
    let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let tls = is_tls.then(ClientTls::default);
    let address = format!("{host}:{port}");
    let dialer = Dialer::new("TLS to a source of plans", &address, tls.as_ref(), |tls| {
        plain_client_config(tls, false)
    });
    let dialer = dialer.map_err(|error| error.to_string())?;
    Ok(Client::builder(TokioExecutor::new()).build(dialer))
}

async fn ask(
    state: &SourceState,
    client: &Client<Dialer, Body>,
    url: &str,
    known: Option<&KnownBody>,
) -> Result<UrlAnswer, String> {
    // The connector does TLS itself: the client must not ask for it once more.
    let mut request = Request::get(url.replacen("https://", "http://", 1)).header(USER_AGENT, "sluicegate");
    let tag = known.and_then(|known| known.tag.as_ref());
    if let Some(tag) = tag {
        request = request.header(IF_NONE_MATCH, tag);
    }
    let request = request.body(Body::empty()).map_err(|error| error.to_string())?;
    let answer = timeout(SILENCE, client.request(request)).await;
    let answer = answer
        .map_err(|_| format!("no answer within {} s", SILENCE.as_secs()))?
        .map_err(|error| with_causes(&error))?;
    match answer.status() {
        StatusCode::OK => {}
        StatusCode::NOT_MODIFIED if tag.is_some() => return Ok(UrlAnswer::Unchanged),
        status => return Err(format!("it answered {status}, not 200")),
    }
    let tag = answer.headers().get(ETAG).cloned();
    let source = state.source();
    let mut lines = SourceLines::new(&source, crate::config::plans::origin(&source.from));
    let mut body = Body::new(answer.into_body()).into_data_stream();
    let mut left = MAX_BYTES;
    let mut hasher = blake3::Hasher::new();
    while let Some(piece) = timeout(SILENCE, body.next())
        .await
        .map_err(|_| "the answer stops in the middle".to_owned())?
    {
        let piece = piece.map_err(|error| format!("the answer breaks off: {}", with_causes(&error)))?;
        left = left
            .checked_sub(piece.len() as u64)
            .ok_or_else(|| format!("the answer has more than {MAX_BYTES} bytes"))?;
        hasher.update(&piece);
        if !lines.feed(&piece) {
            break;
        }
    }
    let rows = lines.finish().map_err(|errors| errors.render(false))?;
    let hash = hasher.finalize();
    // A server without ETags sends the whole each time.
    Ok(match known {
        Some(known) if known.hash == hash && tag.is_none() => UrlAnswer::Unchanged,
        _ => UrlAnswer::Read(Box::new(rows), KnownBody { tag, hash }),
    })
}
