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
use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, timeout};
use tokio_util::task::AbortOnDropHandle;

/// How often files are looked at.
pub const EVERY: Duration = Duration::from_secs(1);
/// Longest look of [`Reloaded::look_now`].
const LOOK: Duration = Duration::from_millis(500);

/// The newest state that could be read. Looking at the files ends when it is dropped.
#[derive(Debug)]
pub struct Reloaded<T> {
    current: Arc<ArcSwap<T>>,
    wake: Arc<Notify>,
    /// How often the files have been looked at.
    looked: watch::Receiver<u64>,
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
        let (looks, looked) = watch::channel(0);
        let wake = Arc::new(Notify::new());
        let ticks = Ticks {
            every,
            wake: Arc::clone(&wake),
            looks,
        };
        let watch = follow(what, files, stamps, ticks, load, Arc::clone(&current));
        Ok(Self {
            current,
            wake,
            looked,
            _watch: AbortOnDropHandle::new(tokio::spawn(watch)),
        })
    }

    /// Looks at the files now, and returns when that is done: what is in force was of no use.
    pub async fn look_now(&self) {
        let mut looked = self.looked.clone();
        looked.borrow_and_update();
        self.wake.notify_one();
        // The one who looks ends only with us; a file system that hangs is not waited for.
        let _ = timeout(LOOK, looked.changed()).await;
    }

    /// The newest state.
    #[must_use]
    pub fn get(&self) -> Arc<T> {
        self.current.load_full()
    }
}

/// When files are looked at.
struct Ticks {
    every: Duration,
    wake: Arc<Notify>,
    looks: watch::Sender<u64>,
}

async fn follow<T: Send + 'static, E: Display + Send + 'static>(
    what: &'static str,
    files: Vec<PathBuf>,
    mut seen: Vec<Stamp>,
    looking: Ticks,
    load: impl Fn() -> Result<T, E> + Send + Sync + 'static,
    current: Arc<ArcSwap<T>>,
) {
    // Reading and parsing a system's bundle takes milliseconds, and a file system may hang: not on a serving thread.
    let (files, load) = (Arc::new(files), Arc::new(load));
    let mut ticks = tokio::time::interval(looking.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last_error = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = looking.wake.notified() => {}
        }
        // Taken before reading: what changes meanwhile is seen as a change next time.
        let stamped = Arc::clone(&files);
        let Ok(now) = spawn_blocking(move || stamps(&stamped)).await else {
            continue;
        };
        if now == seen && last_error.is_none() {
            looking.looks.send_modify(|looks| *looks += 1);
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
        looking.looks.send_modify(|looks| *looks += 1);
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
