//! Files that are read when nobody writes to them.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tracing::warn;

pub(crate) use crate::config::source::Fingerprint;
use crate::config::source::{FileId, Source};

/// How often files are looked at when nothing is notified.
const INTERVAL: Duration = Duration::from_millis(250);
/// How long files must not change before they are read.
const QUIET: Duration = Duration::from_millis(100);
/// How often they are looked at meanwhile.
const STEP: Duration = Duration::from_millis(20);
/// Files that never are quiet are read after this long all the same (and again after their next change).
const PATIENCE: Duration = Duration::from_millis(500);
/// A writer that keeps its file open and writes nothing more counts as gone after this long; nobody waits longer in one look.
const WRITER_PATIENCE: Duration = Duration::from_secs(5);
/// Most open files that are kept in mind.
const MAX_WRITERS: usize = 1024;

/// Files and directories, looked at by one thread.
pub(crate) struct QuietFiles {
    source: Source,
    stop: Stop,
    woken: Receiver<()>,
    writers: Writers,
    /// Kept for as long as they are listened to.
    _notifications: Option<RecommendedWatcher>,
}

/// Ends the waiting of another thread.
#[derive(Debug, Clone)]
pub(crate) struct Stop {
    stopped: Arc<AtomicBool>,
    wake: SyncSender<()>,
}

impl Stop {
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        // If the channel is full the thread is about to wake anyway.
        let _ = self.wake.try_send(());
    }
}

impl QuietFiles {
    /// Begins to listen.
    pub(crate) fn new(source: Source) -> Self {
        let (wake, woken) = sync_channel(1);
        let writers = Writers::default();
        let notifications = notifications(&source, wake.clone(), writers.clone());
        let stopped = Arc::default();
        Self {
            source,
            stop: Stop { stopped, wake },
            woken,
            writers,
            _notifications: notifications,
        }
    }

    /// What ends [`Self::wait`].
    pub(crate) fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// What the files look like from outside.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.source.fingerprint()
    }

    /// Whether somebody who writes to one of them has not closed it yet.
    fn is_written(&self, files: &Fingerprint) -> bool {
        self.writers.hold(files)
    }

    /// Waits for a moment; false = the files have changed since they looked like this, or somebody writes to one of them, so
    /// that what was read of them may be half of a change.
    pub(crate) fn wait_unchanged(&self, files: &Fingerprint) -> bool {
        thread::sleep(QUIET);
        !self.is_written(files) && self.fingerprint() == *files
    }

    /// Until it is time to look; false = the end.
    pub(crate) fn wait(&self) -> bool {
        if self.woken.recv_timeout(INTERVAL) == Ok(()) {
            // Notifications come in swarms: one look is enough for all.
            thread::sleep(STEP);
        }
        !self.stopped()
    }

    fn stopped(&self) -> bool {
        self.stop.stopped.load(Ordering::Relaxed)
    }

    /// Reads when nothing has changed for a moment; `None` if something changes while it is being read.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&Source) -> T) -> Option<(T, Fingerprint)> {
        let start = Instant::now();
        let mut quiet_since = start;
        let mut before = self.fingerprint();
        loop {
            let writing = self.is_written(&before);
            let patience = if writing { WRITER_PATIENCE } else { PATIENCE };
            let quiet = !writing && quiet_since.elapsed() >= QUIET;
            if quiet || self.stopped() || start.elapsed() >= patience {
                break;
            }
            thread::sleep(STEP);
            let now = self.fingerprint();
            if now != before {
                (before, quiet_since) = (now, Instant::now());
            }
        }
        let read = read(&self.source);
        (self.fingerprint() == before).then_some((read, before))
    }
}

/// Files that were written to and not closed yet, and when they last were.
#[derive(Debug, Clone, Default)]
struct Writers(Arc<Mutex<HashMap<FileId, Instant>>>);

impl Writers {
    fn lock(&self) -> MutexGuard<'_, HashMap<FileId, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn written(&self, file: FileId) {
        let mut open = self.lock();
        if open.len() >= MAX_WRITERS {
            open.retain(|_, last| last.elapsed() < WRITER_PATIENCE);
        }
        if open.len() < MAX_WRITERS || open.contains_key(&file) {
            open.insert(file, Instant::now());
        }
    }

    fn closed(&self, file: FileId) {
        self.lock().remove(&file);
    }

    /// Whether one of these files is being written (others in the same directory do not matter).
    fn hold(&self, files: &Fingerprint) -> bool {
        let mut open = self.lock();
        open.retain(|_, last| last.elapsed() < WRITER_PATIENCE);
        !open.is_empty() && files.ids().any(|file| open.contains_key(&file))
    }
}

/// Asks the system to wake the thread; without it, looking at intervals has to do.
fn notifications(source: &Source, wake: SyncSender<()>, writers: Writers) -> Option<RecommendedWatcher> {
    let handler = move |event: notify::Result<notify::Event>| {
        // What went wrong with notifications is made up for by looking.
        let Ok(event) = event else { return };
        if note(&writers, &event) {
            let _ = wake.try_send(());
        }
    };
    let mut watcher = notify::recommended_watcher(handler)
        .inspect_err(|error| warn!(%error, "no file notifications: looking at rules at intervals only"))
        .ok()?;
    for path in source.paths() {
        let (path, mode) = match path.parent() {
            _ if path.is_dir() => (path.as_path(), RecursiveMode::Recursive),
            Some(parent) if parent.as_os_str().is_empty() => (Path::new("."), RecursiveMode::NonRecursive),
            Some(parent) => (parent, RecursiveMode::NonRecursive),
            None => continue,
        };
        if let Err(error) = watcher.watch(path, mode) {
            let path = path.display();
            warn!(%error, %path, "no file notifications: looking at these rules at intervals only");
        }
    }
    Some(watcher)
}

/// Whether a notification is of a change; reads (our own, too) are not.
fn note(writers: &Writers, event: &notify::Event) -> bool {
    let ids = event.paths.iter().filter_map(|path| FileId::of(path).ok());
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => {
            ids.for_each(|file| writers.closed(file));
            true
        }
        EventKind::Modify(ModifyKind::Data(_)) => {
            ids.for_each(|file| writers.written(file));
            true
        }
        // Under its old name it cannot be found any more when the notification of its end is read.
        EventKind::Modify(ModifyKind::Name(_)) => {
            ids.for_each(|file| writers.closed(file));
            true
        }
        EventKind::Access(_) => false,
        _ => true,
    }
}
