//! Logging: text for people, JSON for machines, on standard error.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

pub use crate::config::settings::LogFormat;

/// Starts logging for the whole process. A second call changes nothing (tests start several servers).
///
/// # Errors
/// When `filter` is no level (`info`) and no list of directives (`sluicegate=debug,fred=warn`).
pub fn init(format: LogFormat, filter: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|e| format!("log level {filter:?}: {e}"))?;
    let registry = tracing_subscriber::registry().with(filter);
    // Control characters in field values are escaped by the formatter (text) or by JSON.
    let result = match format {
        LogFormat::Text => registry
            .with(
                fmt::layer()
                    .with_writer(std::io::stderr)
                    .with_target(false)
                    .with_ansi(std::io::stderr().is_terminal()),
            )
            .try_init(),
        LogFormat::Json => registry
            .with(fmt::layer().json().with_writer(std::io::stderr))
            .try_init(),
    };
    if result.is_err() {
        tracing::debug!("logging was already started");
    }
    Ok(())
}
