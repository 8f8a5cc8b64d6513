//! The Redis store against real servers.

mod batches;
mod failover;
mod faults;
mod late;
mod shapes;
mod two_servers;
mod words;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sluicegate::config::settings::RedisSettings;
use sluicegate::model::{Limit, Outcome, Transaction};
use sluicegate::store::redis::{RedisEvent, RedisStore};
use sluicegate::store::{Store, StoreError};

use crate::limits::{all, take};

/// The timeout of the stores under test. Longer than the default, since tests share two cores with others.
pub const TIMEOUT: Duration = Duration::from_millis(150);
/// How long a store may take to find a Redis that is there, at most. Generous: it is only reached on failure.
const PATIENCE: Duration = Duration::from_secs(30);

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
    let store = RedisStore::connect(settings, timeout, observer).expect("good settings");
    (store, events)
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
        let (up, wanted) = store.connections();
        if up == wanted {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{up} of {wanted} connections");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
