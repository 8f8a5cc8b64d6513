//! `GET /api/v1/events`: server-sent events. Readers are bounded in number, and each in what waits for it.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event as Sse, Sse as Stream};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use crate::telemetry::activity::Event;

use super::Api;
use super::problem::Problem;

/// Events that wait for a reader beside what its connection holds.
const QUEUE_EVENTS: usize = 16;
/// A reader that takes nothing for so long is given up.
const SEND_TIMEOUT: Duration = Duration::from_secs(15);
/// What keeps a quiet connection, and shows a reader that is gone.
const HEARTBEAT_PERIOD: Duration = Duration::from_secs(5);

pub(super) async fn events(State(api): State<Api>) -> Response {
    let Ok(permit) = api.0.readers.clone().try_acquire_owned() else {
        let detail = "too many readers of the event stream; close another console";
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).into_response();
    };
    let (sender, receiver) = mpsc::channel(QUEUE_EVENTS);
    let events = api.0.parts.activity.events.subscribe();
    let stop = api.0.parts.stop.clone();
    tokio::spawn(async move {
        let feed = feed(events, |event| view(&api, event), sender, permit);
        stop.run_until_cancelled(feed).await;
    });
    Stream::new(ReceiverStream::new(receiver)).into_response()
}

/// Until the reader is gone, or takes nothing any more.
async fn feed(
    mut events: broadcast::Receiver<Event>,
    view: impl Fn(Event) -> Option<Sse>,
    sender: mpsc::Sender<Result<Sse, Infallible>>,
    _permit: OwnedSemaphorePermit,
) {
    let mut beat = tokio::time::interval(HEARTBEAT_PERIOD);
    loop {
        let next = tokio::select! {
            _ = beat.tick() => Sse::default().comment("beat"),
            event = events.recv() => match event {
                Ok(event) => match view(event) {
                    Some(sse) => sse,
                    None => continue,
                },
                Err(RecvError::Lagged(missed)) => Sse::default().event("missed").data(missed.to_string()),
                Err(RecvError::Closed) => return,
            },
        };
        if sender.send_timeout(Ok(next), SEND_TIMEOUT).await.is_err() {
            return;
        }
    }
}

fn view(api: &Api, event: Event) -> Option<Sse> {
    let (name, data) = match event {
        Event::Denied {
            key,
            denials_since_last,
        } => {
            let counter = api.0.masker.counter(&key, api.0.parts.engine.active().as_deref());
            let data = json!({ "counter": counter, "denials_since_last": denials_since_last });
            ("denied", data)
        }
        Event::Reload(reload) => ("reload", json!(reload)),
        Event::Circuit { store, open } => ("circuit", json!({ "store": store, "open": open })),
    };
    Sse::default().event(name).json_data(data).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::sync::Semaphore;
    use tokio::time::{Instant, timeout};

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_loses_its_place_and_one_that_reads_keeps_it() {
        let places = Arc::new(Semaphore::new(2));
        let place = || Arc::clone(&places).try_acquire_owned().unwrap();
        let events = broadcast::Sender::<Event>::new(4);
        let (sender, stalled) = mpsc::channel(QUEUE_EVENTS);
        tokio::spawn(feed(events.subscribe(), |_| None, sender, place()));
        let (sender, mut reader) = mpsc::channel(QUEUE_EVENTS);
        tokio::spawn(feed(events.subscribe(), |_| None, sender, place()));
        let reads = async { while reader.recv().await.is_some() {} };
        let begin = Instant::now();
        let free = tokio::select! {
            () = reads => panic!("the one that reads was given up"),
            permit = timeout(Duration::from_secs(3600), places.acquire()) => permit.unwrap().unwrap(),
        };
        // Beats fill what waits for it; then it has its patience.
        let filled = HEARTBEAT_PERIOD * u32::try_from(QUEUE_EVENTS).unwrap();
        assert_eq!(begin.elapsed(), filled + SEND_TIMEOUT);
        drop(free);
        assert_eq!(places.available_permits(), 1, "only that one");
        drop(stalled);
    }
}
