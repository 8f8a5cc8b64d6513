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
use crate::store::StoreError;
use crate::store::redis::RedisTransport;
use crate::tls::TlsError;

use super::state::SourceState;

/// Between two looks at the version.
const EVERY: Duration = Duration::from_millis(500);
/// Looks between two readings of a hash whose version does not change: 30 s.
const WHOLE: u32 = 60;
/// How long it may take to connect before that is logged.
const FIRST_CONNECTION: (u32, Duration) = (100, Duration::from_millis(20));
/// Pages of a scan between two pauses, so that a large hash takes but a part of Redis' time.
const PAGES_AT_ONCE: u32 = 4;
/// Such a pause. The timer makes 1 to 2 ms of it.
const PAGE_PAUSE: Duration = Duration::from_millis(1);
/// Readings in a row that are discarded because the version changed meanwhile; the next one counts: entries that change all
/// the time would never come into force otherwise.
const MAX_DISCARDED: u32 = 3;

/// Opens connections of our own to the store's Redis.
pub type OpenRedis = Box<dyn Fn() -> Result<RedisTransport, TlsError> + Send + Sync>;

/// Keeps the table as the hash is, until `stop`.
pub(super) fn read(state: &SourceState, hash: &str, redis: Option<&OpenRedis>, stop: &CancellationToken) {
    let Some(open) = redis else {
        let error = "it needs a store in Redis: start with --redis-url, or name a file or a URL";
        return state.done(Err(error.to_owned()));
    };
    state.block_on(async {
        match open() {
            Ok(redis) => follow(state, &redis, hash, stop).await,
            Err(error) => state.done(Err(format!("TLS to Redis: {error}"))),
        }
    });
}

async fn follow(state: &SourceState, redis: &RedisTransport, hash: &str, stop: &CancellationToken) {
    let key = CounterKey::from_raw(hash);
    let version_key = CounterKey::from_raw(&format!("{hash}:version"));
    // The version that was last read whole, well or not; `None` = it has to be read whatever its version is.
    let mut known: Option<Option<Vec<u8>>> = None;
    // Looks since it was last read.
    let mut looks = 0;
    let mut discarded = 0;
    for _ in 0..FIRST_CONNECTION.0 {
        if redis.connections().0 > 0 || stop.is_cancelled() {
            break;
        }
        sleep(FIRST_CONNECTION.1).await;
    }
    while !stop.is_cancelled() {
        let reread = state.take_reread() || looks >= WHOLE;
        looks += 1;
        let read = match redis.text(&version_key).await {
            Ok(version) if reread || known.as_ref() != Some(&version) => {
                looks = 0;
                let read = scan(state, redis, &key, stop).await;
                if stop.is_cancelled() {
                    return;
                }
                match (read, redis.text(&version_key).await) {
                    (Err(ScanError::Store(error)), _) | (_, Err(error)) => Err(error),
                    // Its parts may be of two versions.
                    (_, Ok(now)) if now != version && discarded < MAX_DISCARDED => {
                        discarded += 1;
                        known = None;
                        continue;
                    }
                    (Ok(rows), Ok(_)) => Ok((version, Ok(rows))),
                    // It is not read again and again.
                    (Err(ScanError::Content(error)), Ok(_)) => Ok((version, Err(error))),
                }
            }
            Ok(_) => {
                sleep(EVERY).await;
                continue;
            }
            Err(error) => Err(error),
        };
        known = match read {
            Ok((version, read)) => {
                discarded = 0;
                state.done(read);
                Some(version)
            }
            Err(error) => {
                state.done(Err(error.to_string()));
                None
            }
        };
        sleep(EVERY).await;
    }
}

/// Why a scan gave no table.
enum ScanError {
    /// Redis did not answer all of it: it is to be asked again.
    Store(StoreError),
    /// What it answered cannot be used.
    Content(String),
}

impl From<StoreError> for ScanError {
    fn from(error: StoreError) -> Self {
        match error.is_about_one_key() {
            true => Self::Content(error.to_string()),
            false => Self::Store(error),
        }
    }
}

async fn scan(
    state: &SourceState,
    redis: &RedisTransport,
    key: &CounterKey,
    stop: &CancellationToken,
) -> Result<PlanRows, ScanError> {
    let source = state.source();
    let name: Arc<str> = origin(&source.from);
    let mut lines = SourceLines::new(&source, name);
    let mut cursor = 0;
    for number in 1_u32.. {
        let page = redis.hash_page(key, cursor).await?;
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
        if number.is_multiple_of(PAGES_AT_ONCE) {
            sleep(PAGE_PAUSE).await;
        }
    }
    let rows = lines
        .done()
        .map_err(|errors| ScanError::Content(errors.render(false)))?;
    if rows.is_empty() {
        let error = "there is no such hash, or it has no fields";
        return Err(ScanError::Content(error.to_owned()));
    }
    Ok(rows)
}
