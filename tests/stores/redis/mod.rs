//! The Redis store against real servers.

mod batches;
mod failover;
mod faults;
mod late;
mod resets;
mod shapes;
mod trust;
mod two_servers;
mod words;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sluicegate::config::settings::RedisSettings;
use sluicegate::model::{Limit, MonotonicClock, Outcome, Transaction};
use sluicegate::store::redis::{RedisEvent, RedisTransport};
use sluicegate::store::remote::Remote;
use sluicegate::store::{Store, StoreError};

use crate::limits::{all, take};

/// The timeout of the stores under test. Longer than the default, since tests share two cores with others.
pub const TIMEOUT: Duration = Duration::from_millis(150);
/// How long a store may take to find a Redis that is there, at most. Generous: it is only reached on failure.
const PATIENCE: Duration = Duration::from_secs(30);

/// The pipeline with no stage but dispatch and ledger, so that what Redis and the connections do is what is seen.
pub type RedisStore = Arc<Remote<RedisTransport>>;

/// Between two rounds of the flusher in these tests.
const FLUSH_EVERY: Duration = Duration::from_millis(5);

/// Puts the pipeline over a transport.
pub fn piped(redis: RedisTransport, timeout: Duration) -> RedisStore {
    let store = Remote::plain(redis, timeout, Arc::new(MonotonicClock::new()));
    flushed(&store);
    store
}

/// Sends what a pipeline's ledger has, again and again.
pub fn flushed(store: &RedisStore) {
    let flushed = Arc::downgrade(store);
    tokio::spawn(async move {
        while let Some(store) = flushed.upgrade() {
            store.flush(TIMEOUT).await;
            drop(store);
            tokio::time::sleep(FLUSH_EVERY).await;
        }
    });
}

/// Connections that are up, and how many there should be.
pub fn connections(store: &RedisStore) -> (usize, usize) {
    store.transport(0).expect("one server").connections()
}

/// What happened to the connections.
pub type Events = Arc<Mutex<Vec<RedisEvent>>>;

/// A store for this URL, and what it tells its observer.
pub fn connect(url: &str) -> (RedisStore, Events) {
    connect_with(&settings(url), TIMEOUT)
}

/// A store whose calls wait as long as it takes: where only the answers matter.
pub fn patient(url: &str) -> RedisStore {
    connect_with(&settings(url), PATIENCE).0
}

/// The settings of a URL.
pub fn settings(url: &str) -> RedisSettings {
    RedisSettings::from_url(url).expect("a good URL")
}

/// A store with settings.
pub fn connect_with(settings: &RedisSettings, timeout: Duration) -> (RedisStore, Events) {
    let events = Events::default();
    let seen = events.clone();
    let observer = Arc::new(move |event: &RedisEvent| seen.lock().push(event.clone()));
    let redis = RedisTransport::connect(settings, timeout, observer).expect("good settings");
    (piped(redis, timeout), events)
}

/// Takes one hit.
pub async fn hit(store: &RedisStore, name: &str, limit: Limit) -> Result<Outcome, StoreError> {
    Ok(store.check(&all([take(name, limit, 1)])).await?[0])
}

/// Checks until there is an answer; how long that took.
pub async fn recover(store: &RedisStore, transaction: &Transaction) -> Duration {
    let start = Instant::now();
    loop {
        match store.check(transaction).await {
            Ok(_) => return start.elapsed(),
            Err(error) => assert!(start.elapsed() < PATIENCE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until all connections are up.
pub async fn all_up(store: &RedisStore) {
    let start = Instant::now();
    loop {
        let (up, wanted) = connections(store);
        if up == wanted {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{up} of {wanted} connections");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
