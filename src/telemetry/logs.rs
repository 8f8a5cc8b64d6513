//! Logging: text for people, JSON for machines, on standard error.
//!
//! Lines are written by a thread of their own. Where nobody reads them (a log driver that is stuck, a full pipe) they
//! wait in a bounded queue and are then dropped, so that no answer waits for a reader; how many is counted, and said
//! once somebody reads again.

use std::io::IsTerminal;
use std::sync::OnceLock;
use std::time::Duration;

use prometheus::IntCounter;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use super::json_lines::JsonLines;
pub use crate::config::settings::LogFormat;

/// Lines that wait for a slow reader; more are dropped.
const MAX_WAITING_LINES: usize = 4096;
/// How often is looked whether lines were dropped.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Lines of this process that were dropped.
static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// Logging of the whole process; when dropped, lines that wait are written, if that is possible within about a second.
#[derive(Debug)]
#[must_use]
pub struct Logs {
    _writer: WorkerGuard,
}

/// Of libraries only errors, where the user names a level and no directives: what fred says of each connection and try we
/// say once for each server, and what h2 warns of any peer can bring about as often as it likes. At `debug`, which published
/// manifests set to see what is asked, it would write a line for every frame.
fn directives(filter: &str) -> String {
    match filter {
        "info" | "warn" | "debug" | "trace" => format!("error,{}={filter}", env!("CARGO_CRATE_NAME")),
        _ => filter.to_owned(),
    }
}

/// Starts logging for the whole process. A second call changes nothing.
///
/// # Errors
/// When `filter` is no level (`info`) and no list of directives (`sluicegate=debug,fred=warn`).
pub fn init(format: LogFormat, filter: &str) -> Result<Logs, String> {
    let filter = EnvFilter::try_new(directives(filter)).map_err(|e| format!("log level {filter:?}: {e}"))?;
    let registry = tracing_subscriber::registry().with(filter);
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(MAX_WAITING_LINES)
        .thread_name("logs")
        .finish(std::io::stderr());
    let dropped = writer.error_counter();
    // Control characters in field values are escaped by the formatter (text) or by JSON.
    let result = match format {
        LogFormat::Text => registry
            .with(
                fmt::layer()
                    .with_writer(writer)
                    .with_target(false)
                    .with_ansi(std::io::stderr().is_terminal()),
            )
            .try_init(),
        LogFormat::Json => registry
            .with(fmt::layer().event_format(JsonLines).with_writer(writer))
            .try_init(),
    };
    if result.is_err() || DROPPED.set(dropped).is_err() {
        tracing::debug!("logging was already started");
    }
    Ok(Logs { _writer: guard })
}

/// Counts dropped lines, and says in the log that there are some; for ever.
pub async fn tell_dropped(counter: IntCounter) {
    let (mut counted, mut told) = (0, 0);
    let dropped = || DROPPED.get().map_or(0, |dropped| dropped.dropped_lines());
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = dropped();
        counter.inc_by(u64::try_from(now.saturating_sub(counted)).unwrap_or(u64::MAX));
        counted = now;
        if now > told {
            tracing::warn!(
                dropped = now,
                "log lines were dropped since the start: nobody read them"
            );
            // This one may have been dropped, too.
            if dropped() == now {
                told = now;
            }
        }
    }
}
