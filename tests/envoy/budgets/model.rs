//! A model server: it answers with a cost, without one, too late, in part, or not at all, as the request's path says.

use std::{
    convert::Infallible,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{Response, StatusCode, Uri, header::CONTENT_TYPE},
};
use tokio::net::TcpListener;

/// A running server; it ends with the test's runtime.
pub struct Model {
    pub port: u16,
}

impl Model {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let router = Router::new().fallback(answer);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { port }
    }
}

/// Requests that wanted an answer at the third attempt.
static ATTEMPTS: AtomicUsize = AtomicUsize::new(0);

async fn answer(uri: Uri) -> Response<Body> {
    let path = uri.path().trim_start_matches('/');
    let (what, tokens) = path.split_once('/').unwrap_or((path, "0"));
    let ok = || Response::builder().status(StatusCode::OK);
    let built = match what {
        // So does its body, in OpenAI's words.
        "json" => ok()
            .header(CONTENT_TYPE, "application/json")
            .body(Body::from(json(tokens))),
        "stream" => ok()
            .header(CONTENT_TYPE, "text/event-stream")
            .body(Body::from(events(tokens))),
        // A part of the question was in the cache; twice as many tokens in all.
        "cached" => ok()
            .header(CONTENT_TYPE, "application/json")
            .body(Body::from(cached(tokens))),
        // Anthropic's words.
        "messages" => ok()
            .header(CONTENT_TYPE, "text/event-stream")
            .body(Body::from(messages(tokens))),
        "silent" => ok().body(Body::from("done")),
        "flaky" if ATTEMPTS.fetch_add(1, Relaxed) < 2 => Response::builder()
            .status(StatusCode::SERVICE_UNAVAILABLE)
            .body(Body::empty()),
        // Its header says what it cost.
        "header" | "flaky" => ok().header("x-tokens", tokens).body(Body::from("done")),
        // The connection ends without a word: hyper closes it when its service panics.
        "reset" => panic!("as asked"),
        "error" => Response::builder().status(StatusCode::BAD_GATEWAY).body(Body::empty()),
        // The connection ends in the middle of the body.
        "broken" => ok().body(Body::from_stream(parts([Ok("half"), Err("gone")], false))),
        // The body never ends.
        "endless" => ok().body(Body::from_stream(parts([Ok("half")], true))),
        _ => {
            tokio::time::sleep(Duration::from_secs(300)).await;
            ok().body(Body::empty())
        }
    };
    built.expect("a response")
}

fn parts<const N: usize>(
    parts: [Result<&'static str, &'static str>; N],
    endless: bool,
) -> impl futures::Stream<Item = Result<Bytes, std::io::Error>> {
    use futures::StreamExt as _;
    let ready = parts.map(|part| {
        part.map(|text| Bytes::from_static(text.as_bytes()))
            .map_err(std::io::Error::other)
    });
    let never =
        futures::stream::pending::<Result<Bytes, Infallible>>().map(|part| part.map_err(|never| match never {}));
    // What has been sent is on its way before the end comes.
    let ready = futures::stream::iter(ready).then(async |part| {
        tokio::time::sleep(Duration::from_millis(50)).await;
        part
    });
    ready.chain(never.take(usize::from(endless)))
}

fn json(tokens: &str) -> String {
    format!(
        r#"{{"id":"c","object":"chat.completion","model":"m","choices":[{{"index":0,"message":{{"role":"assistant","content":"hi"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":0,"completion_tokens":{tokens},"total_tokens":{tokens}}}}}"#
    )
}

fn events(tokens: &str) -> String {
    let chunk =
        r#"{"id":"c","object":"chat.completion.chunk","model":"m","choices":[{"index":0,"delta":{"content":"hi"}}]}"#;
    let usage = format!(
        r#"{{"id":"c","object":"chat.completion.chunk","model":"m","choices":[],"usage":{{"prompt_tokens":0,"completion_tokens":{tokens},"total_tokens":{tokens}}}}}"#
    );
    format!("data: {chunk}\n\ndata: {chunk}\n\ndata: {usage}\n\ndata: [DONE]\n\n")
}

fn cached(tokens: &str) -> String {
    let usage = format!(
        r#"{{"prompt_tokens":{tokens},"prompt_tokens_details":{{"cached_tokens":40}},"completion_tokens":{tokens},"total_tokens":{}}}"#,
        tokens.parse::<u64>().unwrap_or(0) * 2
    );
    let plain = r#"{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}"#;
    json("0").replace(plain, &usage)
}

/// 50 tokens of a question, and so many of the answer.
fn messages(tokens: &str) -> String {
    let start = r#"{"type":"message_start","message":{"id":"c","type":"message","role":"assistant","model":"m","content":[],"usage":{"input_tokens":50,"output_tokens":1}}}"#;
    let delta = format!(
        r#"{{"type":"message_delta","delta":{{"stop_reason":"end_turn"}},"usage":{{"output_tokens":{tokens}}}}}"#
    );
    format!(
        "event: message_start\ndata: {start}\n\nevent: message_delta\ndata: {delta}\n\nevent: message_stop\ndata: {{\"type\":\"message_stop\"}}\n\n"
    )
}
