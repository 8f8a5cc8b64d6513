//! A hash in the store's Redis, read in bounded steps: whole at intervals, and at once when the text at `<hash>:version`
//! changes.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::config::plans::lines::SourceLines;
use crate::config::plans::origin;
use crate::model::CounterKey;
use crate::rules::plans::PlanRows;
use crate::store::redis::RedisTransport;
use crate::tls::TlsError;

use super::state::SourceState;

/// Between two looks at the version.
const EVERY: Duration = Duration::from_millis(500);
/// Looks between two readings of a hash whose version does not change: 30 s.
const WHOLE: u32 = 60;
/// How long it may take to connect before that is said.
const FIRST_CONNECTION: (u32, Duration) = (100, Duration::from_millis(20));
/// Pauses between steps, so that a large hash takes but a small part of Redis' time.
const BREATH: Duration = Duration::from_micros(200);

/// Opens connections of our own to the store's Redis.
pub type OpenRedis = Box<dyn Fn() -> Result<RedisTransport, TlsError> + Send + Sync>;

/// Keeps the table as the hash is, until `stop`.
pub(super) fn read(state: &SourceState, hash: &str, redis: Option<&OpenRedis>, stop: &CancellationToken) {
    let Some(open) = redis else {
        let error = "it needs a store in Redis: start with --redis-url, or name a file or a URL";
        return state.done(Err(error.to_owned()));
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(async {
            match open() {
                Ok(redis) => follow(state, &redis, hash, stop).await,
                Err(error) => state.done(Err(format!("TLS to Redis: {error}"))),
            }
        }),
        Err(error) => state.done(Err(format!("cannot start a runtime: {error}"))),
    }
}

async fn follow(state: &SourceState, redis: &RedisTransport, hash: &str, stop: &CancellationToken) {
    let key = CounterKey::from_raw(hash);
    let version_key = CounterKey::from_raw(&format!("{hash}:version"));
    let mut known: Option<Option<Vec<u8>>> = None;
    // Looks since it was last read.
    let mut looks = 0;
    for _ in 0..FIRST_CONNECTION.0 {
        if redis.connections().0 > 0 || stop.is_cancelled() {
            break;
        }
        sleep(FIRST_CONNECTION.1).await;
    }
    while !stop.is_cancelled() {
        let again = state.take_wish() || looks >= WHOLE;
        looks += 1;
        match redis.text(&version_key).await {
            Ok(version) if again || known.as_ref() != Some(&version) => {
                let read = scan(state, redis, &key, stop).await;
                looks = 0;
                // What was read under a version may be of the next one: then that is seen at the next look. What is wrong is
                // not read again and again.
                known = Some(version);
                state.done(read);
            }
            Ok(_) => {}
            Err(error) => {
                known = None;
                state.done(Err(error.to_string()));
            }
        }
        sleep(EVERY).await;
    }
}

async fn scan(
    state: &SourceState,
    redis: &RedisTransport,
    key: &CounterKey,
    stop: &CancellationToken,
) -> Result<PlanRows, String> {
    let source = state.source();
    let name: Arc<str> = origin(&source.from);
    let mut lines = SourceLines::new(&source, name);
    let mut cursor = 0;
    loop {
        let page = redis.hash_page(key, cursor).await.map_err(|error| error.to_string())?;
        for (field, value) in page.fields {
            lines.entry(&field, &value);
        }
        if lines.is_hopeless() || stop.is_cancelled() {
            break;
        }
        match page.next {
            Some(next) => cursor = next,
            None => break,
        }
        sleep(BREATH).await;
    }
    let rows = lines.done().map_err(|errors| errors.render(false))?;
    if rows.is_empty() {
        return Err("there is no such hash, or it has no fields".to_owned());
    }
    Ok(rows)
}
