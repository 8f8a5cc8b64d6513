//! Keeps the tables of plans fresh: each source of the rules in force is read, whenever it changes, on a thread of its own,
//! and put in force by one swap. What is wrong with one is counted and said, and its last good table stays.
//!
//! | file | what is in it |
//! |---|---|
//! | `mod` | which sources are read, through reloads of the rules |
//! | `state` | one source: its table in force, and what became of its last reading |
//! | `file`, `redis`, `http` | how each kind is read |

mod file;
mod http;
mod redis;
mod state;

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::rules::RuleSet;
use crate::rules::plans::{PlanOrigin, PlanSource};
use crate::telemetry::Metrics;

pub use self::redis::OpenRedis;
use self::state::{SourceState, StaleSources};

/// How long new rules wait for the first reading of all their files together.
const FIRST_READING: Duration = Duration::from_secs(30);

/// How soon the end of a source is seen that is not being read.
const STOP_SEEN: Duration = Duration::from_millis(250);

/// Reads the sources of the rules in force.
pub struct SourceKeeper {
    running: Mutex<Vec<RunningSource>>,
    metrics: Arc<Metrics>,
    stale: Arc<StaleSources>,
    redis: Option<Arc<OpenRedis>>,
}

/// A source that is being read.
struct RunningSource {
    state: Arc<SourceState>,
    /// Ends its thread.
    stop: CancellationToken,
}

impl Drop for RunningSource {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl SourceKeeper {
    /// Reads nothing yet. `redis` opens connections where the store is in Redis; `on_stale` is called with the sources that could not
    /// be read when they were last tried, whenever that changes.
    #[must_use]
    pub fn new(
        metrics: Arc<Metrics>,
        redis: Option<OpenRedis>,
        on_stale: impl Fn(Vec<String>) + Send + Sync + 'static,
    ) -> Self {
        Self {
            running: Mutex::default(),
            metrics,
            stale: Arc::new(StaleSources::new(on_stale)),
            redis: redis.map(Arc::new),
        }
    }

    /// Reads the sources of rules that are about to come into force, and those of no others. What has been read of a source
    /// that the rules before had, too, goes on; files that are new are read before this returns.
    pub fn follow(&self, rules: &RuleSet) {
        let mut running = self.running.lock();
        // Nothing is sent: it ends when the last one who reads for the first time has dropped its end.
        let (unread, all_read) = sync_channel(0);
        let mut kept = Vec::with_capacity(rules.sources.len());
        for source in &rules.sources {
            let known = running
                .iter()
                .position(|known| known.state.source().is_same_place(source));
            let next = match known {
                Some(at) => {
                    let known = running.swap_remove(at);
                    known.state.go_on_as(source);
                    Ok(known)
                }
                None => self.start(source, &unread),
            };
            match next {
                Ok(next) => kept.push(next),
                Err(error) => tracing::error!(
                    source = &*source.name,
                    %error,
                    "no thread to read this source of plans: all of its values have the default"
                ),
            }
        }
        *running = kept;
        drop(running);
        drop(unread);
        // What could not be read has been logged.
        let _ = all_read.recv_timeout(FIRST_READING);
    }

    /// Reads a source from now on; of a file `unread` is kept until it has been read once.
    fn start(&self, source: &Arc<PlanSource>, unread: &SyncSender<Infallible>) -> io::Result<RunningSource> {
        let state = Arc::new(SourceState::new(source, &self.metrics, &self.stale));
        let stop = CancellationToken::new();
        let (token, of) = (stop.clone(), Arc::clone(&state));
        let redis = self.redis.clone();
        let unread = unread.clone();
        let from = source.from.clone();
        thread::Builder::new().name("plans".to_owned()).spawn(move || {
            match from {
                PlanOrigin::File { path, .. } => file::read(&of, Path::new(&*path), &token, unread),
                PlanOrigin::Redis(hash) => {
                    drop(unread);
                    redis::read(&of, &hash, redis.as_deref(), &token);
                }
                PlanOrigin::Http { url, every } => {
                    drop(unread);
                    http::read(&of, &url, every, &token);
                }
            }
            // What cannot even be begun stays said for as long as the rules name it.
            while !token.is_cancelled() {
                thread::sleep(STOP_SEEN);
            }
            of.end();
        })?;
        Ok(RunningSource { state, stop })
    }
}
