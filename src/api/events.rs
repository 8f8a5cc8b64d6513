//! `GET /api/v1/events`: server-sent events. Readers are bounded in number, and each in what waits for it.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event as Sse, Sse as Stream};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use crate::telemetry::activity::Event;

use super::Api;
use super::problem::Problem;

/// Events that wait for a reader beside what its connection holds.
const AHEAD: usize = 16;
/// A reader that takes nothing for so long is given up.
const PATIENCE: Duration = Duration::from_secs(15);
/// What keeps a quiet connection, and shows a reader that is gone.
const BEAT: Duration = Duration::from_secs(5);

pub(super) async fn events(State(api): State<Api>) -> Response {
    let Ok(permit) = api.0.readers.clone().try_acquire_owned() else {
        let detail = "too many readers of the event stream; close another console";
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).into_response();
    };
    let (sender, receiver) = mpsc::channel(AHEAD);
    let stop = api.0.parts.stop.clone();
    tokio::spawn(async move {
        stop.run_until_cancelled(feed(api, sender, permit)).await;
    });
    Stream::new(ReceiverStream::new(receiver)).into_response()
}

/// Until the reader is gone, or takes nothing any more.
async fn feed(api: Api, sender: mpsc::Sender<Result<Sse, Infallible>>, _permit: OwnedSemaphorePermit) {
    let mut events = api.0.parts.activity.events.subscribe();
    let mut beat = tokio::time::interval(BEAT);
    loop {
        let next = tokio::select! {
            _ = beat.tick() => Sse::default().comment("beat"),
            event = events.recv() => match event {
                Ok(event) => match view(&api, event) {
                    Some(sse) => sse,
                    None => continue,
                },
                Err(RecvError::Lagged(missed)) => Sse::default().event("missed").data(missed.to_string()),
                Err(RecvError::Closed) => return,
            },
        };
        if sender.send_timeout(Ok(next), PATIENCE).await.is_err() {
            return;
        }
    }
}

fn view(api: &Api, event: Event) -> Option<Sse> {
    let (name, data) = match event {
        Event::Denied { key, count } => {
            let counter = api.0.masker.counter(&key, api.0.parts.engine.active().as_deref());
            ("denied", json!({ "counter": counter, "count": count }))
        }
        Event::Reload(reload) => ("reload", json!(reload)),
        Event::Circuit { store, open } => ("circuit", json!({ "store": store, "open": open })),
    };
    Sse::default().event(name).json_data(data).ok()
}
