//! `GET /api/v1/events`: server-sent events. Readers are bounded in number, and each in what waits for it.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event as Sse, Sse as Stream};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use crate::telemetry::activity::Event;

use super::Api;
use super::readers::ReaderPlace;

/// Events that wait for a reader beside what its connection holds.
const QUEUE_EVENTS: usize = 16;
/// A reader that takes nothing for so long is given up.
const SEND_TIMEOUT: Duration = Duration::from_secs(15);
/// What keeps a quiet connection, and shows a reader that is gone.
const HEARTBEAT_PERIOD: Duration = Duration::from_secs(5);

pub(super) async fn events(State(api): State<Api>) -> Response {
    let place = api.0.readers.enter();
    let (sender, receiver) = mpsc::channel(QUEUE_EVENTS);
    let events = api.0.parts.activity.events.subscribe();
    let stop = api.0.parts.stop.clone();
    tokio::spawn(async move {
        let feed = feed(events, |event| view(&api, event), sender, place);
        stop.run_until_cancelled(feed).await;
    });
    Stream::new(ReceiverStream::new(receiver)).into_response()
}

/// Until the reader is gone, takes nothing any more, or its place is taken.
async fn feed(
    events: broadcast::Receiver<Event>,
    view: impl Fn(Event) -> Option<Sse>,
    sender: mpsc::Sender<Result<Sse, Infallible>>,
    place: ReaderPlace,
) {
    let sent = send_all(events, view, &sender);
    if place.taken.run_until_cancelled(sent).await.is_none() {
        // To one that still reads.
        let said = Sse::default()
            .event("displaced")
            .data("newer readers have taken the place");
        let _ = sender.try_send(Ok(said));
    }
}

async fn send_all(
    mut events: broadcast::Receiver<Event>,
    view: impl Fn(Event) -> Option<Sse>,
    sender: &mpsc::Sender<Result<Sse, Infallible>>,
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
    use super::super::readers::{MAX_READERS, Readers};
    use super::*;
    use tokio::time::{Instant, timeout};

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_loses_its_place_and_one_that_reads_keeps_it() {
        let readers = Readers::default();
        let events = broadcast::Sender::<Event>::new(4);
        let (sender, stalled) = mpsc::channel(QUEUE_EVENTS);
        let given_up = feed(events.subscribe(), |_| None, sender, readers.enter());
        let (sender, mut reader) = mpsc::channel(QUEUE_EVENTS);
        tokio::spawn(feed(events.subscribe(), |_| None, sender, readers.enter()));
        let reads = async { while reader.recv().await.is_some() {} };
        let begin = Instant::now();
        tokio::select! {
            () = reads => panic!("the one that reads was given up"),
            ended = timeout(Duration::from_secs(3600), given_up) => ended.unwrap(),
        }
        // Beats fill what waits for it; then it has its patience.
        let filled = HEARTBEAT_PERIOD * u32::try_from(QUEUE_EVENTS).unwrap();
        assert_eq!(begin.elapsed(), filled + SEND_TIMEOUT);
        assert_eq!(readers.len(), 1, "only that one");
        drop(stalled);
    }

    #[tokio::test(start_paused = true)]
    async fn of_too_many_readers_the_oldest_leaves_also_one_that_is_stuck() {
        let readers = Readers::default();
        let events = broadcast::Sender::<Event>::new(4);
        let (sender, mut stalled) = mpsc::channel(1);
        let oldest = tokio::spawn(feed(events.subscribe(), |_| None, sender, readers.enter()));
        // Its first beat fills its queue, and the second waits.
        tokio::time::sleep(HEARTBEAT_PERIOD + Duration::from_secs(1)).await;
        let newer: Vec<ReaderPlace> = (1..MAX_READERS).map(|_| readers.enter()).collect();
        tokio::task::yield_now().await;
        assert!(!oldest.is_finished() && readers.len() == MAX_READERS);
        let newest = readers.enter();
        oldest.await.unwrap();
        assert_eq!(readers.len(), MAX_READERS);
        assert!(newer.iter().chain([&newest]).all(|place| !place.taken.is_cancelled()));
        assert!(stalled.recv().await.is_some() && stalled.recv().await.is_none());
        drop((newer, newest));
        assert_eq!(readers.len(), 0);
    }
}
