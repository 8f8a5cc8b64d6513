//! Something that is read from files, and read again when they change.
//!
//! The files' identity (inode, size, time of change) is looked at once a second rather than watched: that sees every
//! way of changing them (in place, renamed over, a Kubernetes Secret's symlinks swapped, any file system), and costs
//! a few `stat` calls. What cannot be read keeps the old state in force and is tried again until it can.

use std::fmt::Display;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::task::spawn_blocking;
use tokio::time::MissedTickBehavior;
use tokio_util::task::AbortOnDropHandle;

/// How often files are looked at.
pub const EVERY: Duration = Duration::from_secs(1);

/// The newest state that could be read. Looking at the files ends when it is dropped.
#[derive(Debug)]
pub struct Reloaded<T> {
    current: Arc<ArcSwap<T>>,
    _watch: AbortOnDropHandle<()>,
}

/// What tells one content of a file from another, without reading it: device, inode, size, time of change.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

impl<T: Send + Sync + 'static> Reloaded<T> {
    /// Reads once, then again whenever one of `files` changed. `what` names it in logs. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the first reading fails; later failures are logged.
    pub fn start<E: Display + Send + 'static>(
        what: &'static str,
        files: Vec<PathBuf>,
        every: Duration,
        load: impl Fn() -> Result<T, E> + Send + Sync + 'static,
    ) -> Result<Self, E> {
        let stamps = stamps(&files);
        let current = Arc::new(ArcSwap::from_pointee(load()?));
        let watch = watch(what, files, stamps, every, load, Arc::clone(&current));
        Ok(Self {
            current,
            _watch: AbortOnDropHandle::new(tokio::spawn(watch)),
        })
    }

    /// The newest state.
    #[must_use]
    pub fn get(&self) -> Arc<T> {
        self.current.load_full()
    }
}

async fn watch<T: Send + 'static, E: Display + Send + 'static>(
    what: &'static str,
    files: Vec<PathBuf>,
    mut seen: Vec<Stamp>,
    every: Duration,
    load: impl Fn() -> Result<T, E> + Send + Sync + 'static,
    current: Arc<ArcSwap<T>>,
) {
    // Reading and parsing a system's bundle takes milliseconds, and a file system may hang: not on a serving thread.
    let (files, load) = (Arc::new(files), Arc::new(load));
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last_error = None;
    loop {
        ticks.tick().await;
        // Taken before reading: what changes meanwhile is seen as a change next time.
        let stamped = Arc::clone(&files);
        let Ok(now) = spawn_blocking(move || stamps(&stamped)).await else {
            continue;
        };
        if now == seen && last_error.is_none() {
            continue;
        }
        let load = Arc::clone(&load);
        let Ok(loaded) = spawn_blocking(move || load()).await else {
            continue;
        };
        match loaded {
            Ok(new) => {
                current.store(Arc::new(new));
                tracing::info!(what, "files changed: read again");
                last_error = None;
            }
            Err(error) => {
                let error = error.to_string();
                if last_error.as_ref() != Some(&error) {
                    tracing::error!(what, %error, "files changed, but cannot be used: keeping the old ones");
                }
                last_error = Some(error);
            }
        }
        seen = now;
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    files.iter().map(|file| stamp(file)).collect()
}

/// Follows symlinks.
fn stamp(file: &Path) -> Stamp {
    let meta = fs::metadata(file).ok()?;
    Some((meta.dev(), meta.ino(), meta.size(), meta.ctime(), meta.ctime_nsec()))
}
