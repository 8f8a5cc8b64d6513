//! Reloads rules when their files change, however they are changed: in place, renamed over, or swapped by symbolic
//! link as Kubernetes does. What is wrong is reported and changes nothing.
//!
//! The files' [`Fingerprint`] decides, a few times a second, so that a change is seen on every file system; the
//! system's notifications only make it faster, and tell when a writer has not closed its file yet. A file is read when
//! it has been quiet for a moment, once, and is compiled from what was read: never while it is half written.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{io, thread};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tracing::warn;

use crate::rules::{Defaults, RuleSet};

use super::error::{ConfigErrors, Warnings};
use super::load::{Summary, compile_snapshot};
use super::source::{FileId, Fingerprint, Snapshot, Source};

/// How often files are looked at when nothing is notified.
const INTERVAL: Duration = Duration::from_millis(250);
/// How long files must not change before they are read.
const QUIET: Duration = Duration::from_millis(100);
/// How often they are looked at meanwhile.
const STEP: Duration = Duration::from_millis(20);
/// Files that never are quiet are read after this long all the same (and again after their next change).
const PATIENCE: Duration = Duration::from_millis(500);
/// A writer that keeps its file open is waited for this long.
const WRITER_PATIENCE: Duration = Duration::from_secs(5);
/// After so many looks without a verdict what is wrong is reported although it goes on changing.
const MAX_MISSED: u32 = 5;
/// Most open files that are kept in mind.
const MAX_WRITERS: usize = 1024;

/// Rules that were loaded.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// 1 for the first, one more for each after it.
    pub generation: u64,
    /// The rules.
    pub rules: Arc<RuleSet>,
    /// How many of what.
    pub summary: Summary,
    /// What in them has not the effect that it seems to have.
    pub warnings: Warnings,
    /// Of the texts they were compiled from.
    pub(super) digest: [u8; 32],
}

/// What came of a change.
#[derive(Debug)]
pub enum Event {
    /// New rules.
    Loaded(Loaded),
    /// The files are wrong; the rules stay as they are.
    Failed(ConfigErrors),
}

/// Loads for the first time.
///
/// # Errors
/// Everything that is wrong in any file.
pub fn first(source: &Source, defaults: &Defaults) -> Result<Loaded, ConfigErrors> {
    let snapshot = source.read();
    let digest = snapshot.digest();
    let (rules, summary, warnings) = compile_snapshot(snapshot, defaults)?;
    Ok(Loaded {
        generation: 1,
        rules: Arc::new(rules),
        summary,
        warnings,
        digest,
    })
}

/// Watches until dropped.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    wake: SyncSender<()>,
    thread: Option<JoinHandle<()>>,
}

/// Watches a source on a thread of its own. `loaded` is what is in force (`None` if the first load failed and the
/// process serves all the same); `on_event` hears of every change that followed, on that thread.
///
/// # Errors
/// If no thread can be started.
pub fn watch(
    source: Source,
    defaults: Defaults,
    loaded: Option<&Loaded>,
    on_event: impl FnMut(Event) + Send + 'static,
) -> io::Result<Watch> {
    let (wake, woken) = sync_channel(1);
    let stop = Arc::new(AtomicBool::new(false));
    let writers = Writers::default();
    let notifications = notifications(&source, wake.clone(), writers.clone());
    let mut reloader = Reloader {
        source,
        defaults,
        generation: loaded.map_or(0, |loaded| loaded.generation),
        digest: loaded.map(|loaded| loaded.digest),
        seen: None,
        missed: 0,
        stop: Arc::clone(&stop),
        woken,
        writers,
        on_event,
    };
    let thread = thread::Builder::new().name("rules-watch".to_owned()).spawn(move || {
        // Kept for as long as they are listened to.
        let _notifications = notifications;
        while reloader.wait() {
            reloader.look();
        }
    })?;
    Ok(Watch {
        stop,
        wake,
        thread: Some(thread),
    })
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // If the channel is full the thread is about to wake anyway.
        let _ = self.wake.try_send(());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Files that were written to and not closed yet, and since when.
#[derive(Debug, Clone, Default)]
struct Writers(Arc<Mutex<HashMap<FileId, Instant>>>);

impl Writers {
    fn lock(&self) -> MutexGuard<'_, HashMap<FileId, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn opened(&self, file: FileId) {
        let mut open = self.lock();
        if open.len() >= MAX_WRITERS {
            open.retain(|_, since| since.elapsed() < WRITER_PATIENCE);
        }
        if open.len() < MAX_WRITERS {
            open.entry(file).or_insert_with(Instant::now);
        }
    }

    fn closed(&self, file: FileId) {
        self.lock().remove(&file);
    }

    /// Whether one of these files is being written (others in the same directory do not matter).
    fn hold(&self, files: &Fingerprint) -> bool {
        let mut open = self.lock();
        open.retain(|_, since| since.elapsed() < WRITER_PATIENCE);
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
            ids.for_each(|file| writers.opened(file));
            true
        }
        EventKind::Access(_) => false,
        _ => true,
    }
}

struct Reloader<F> {
    source: Source,
    defaults: Defaults,
    generation: u64,
    /// Of what was last compiled, well or not: the same again is no news.
    digest: Option<[u8; 32]>,
    /// What the files looked like when they were last read.
    seen: Option<Fingerprint>,
    /// Looks in a row that ended without a verdict, because something went on changing.
    missed: u32,
    stop: Arc<AtomicBool>,
    woken: Receiver<()>,
    writers: Writers,
    on_event: F,
}

impl<F: FnMut(Event)> Reloader<F> {
    /// Until it is time to look; false = the end.
    fn wait(&self) -> bool {
        if self.woken.recv_timeout(INTERVAL) == Ok(()) {
            // Notifications come in swarms: one look is enough for all.
            thread::sleep(STEP);
        }
        !self.stopped()
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Something changed while it was looked at; the next look comes soon.
    fn miss(&mut self) {
        self.missed += 1;
        if self.missed == MAX_MISSED {
            warn!("rules files keep changing while they are read: is something else written there?");
        }
    }

    /// Reads and compiles if the files have changed.
    fn look(&mut self) {
        if self.seen.as_ref() == Some(&self.source.fingerprint()) {
            return;
        }
        let Some((snapshot, seen)) = self.read_quiet() else {
            return self.miss();
        };
        let digest = snapshot.digest();
        if self.digest == Some(digest) {
            self.seen = Some(seen);
            return;
        }
        let compiled = compile_snapshot(snapshot, &self.defaults);
        if compiled.is_err() && self.missed < MAX_MISSED {
            // It may have been half of a change (one file of two, say): then the other half gets its chance.
            thread::sleep(QUIET);
            if self.writers.hold(&seen) || self.source.fingerprint() != seen {
                return self.miss();
            }
        }
        self.missed = 0;
        self.seen = Some(seen);
        self.digest = Some(digest);
        let event = match compiled {
            Ok((rules, summary, warnings)) => {
                self.generation += 1;
                Event::Loaded(Loaded {
                    generation: self.generation,
                    rules: Arc::new(rules),
                    summary,
                    warnings,
                    digest,
                })
            }
            Err(errors) => Event::Failed(errors),
        };
        (self.on_event)(event);
    }

    /// Reads when nothing has changed for a moment; `None` if something changes while it is being read.
    fn read_quiet(&self) -> Option<(Snapshot, Fingerprint)> {
        let start = Instant::now();
        let mut quiet_since = start;
        let mut before = self.source.fingerprint();
        loop {
            let writing = self.writers.hold(&before);
            let patience = if writing { WRITER_PATIENCE } else { PATIENCE };
            let quiet = !writing && quiet_since.elapsed() >= QUIET;
            if quiet || self.stopped() || start.elapsed() >= patience {
                break;
            }
            thread::sleep(STEP);
            let now = self.source.fingerprint();
            if now != before {
                (before, quiet_since) = (now, Instant::now());
            }
        }
        let snapshot = self.source.read();
        (self.source.fingerprint() == before).then_some((snapshot, before))
    }
}
