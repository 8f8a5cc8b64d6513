//! Reloads rules when their files change, however they are changed: in place, renamed over, or swapped by symbolic
//! link as Kubernetes does. What is wrong is reported and changes nothing.
//!
//! The files' [`Fingerprint`] decides, a few times a second, so that a change is seen on every file system; the
//! system's notifications only make it faster, and tell when a writer has not closed its file yet. A file is read when
//! it has been quiet for a moment, once, and is compiled from what was read: never while it is half written.

pub(crate) mod quiet;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::{io, thread};

use tracing::warn;

use crate::rules::{Defaults, RuleSet};

use super::error::{ConfigErrors, Warnings};
use super::load::{Summary, compile_snapshot};
use super::source::{Fingerprint, Source};
use quiet::{QuietFiles, Stop};

/// After so many looks without a verdict what is wrong is reported although it goes on changing.
const MAX_MISSED: u32 = 5;

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
    stop: Stop,
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
    let files = QuietFiles::new(source);
    let stop = files.stop();
    let mut reloader = Reloader {
        files,
        defaults,
        generation: loaded.map_or(0, |loaded| loaded.generation),
        digest: loaded.map(|loaded| loaded.digest),
        seen: None,
        missed: 0,
        on_event,
    };
    let thread = thread::Builder::new().name("rules-watch".to_owned()).spawn(move || {
        while reloader.files.wait() {
            reloader.look();
        }
    })?;
    Ok(Watch {
        stop,
        thread: Some(thread),
    })
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Reloader<F> {
    files: QuietFiles,
    defaults: Defaults,
    generation: u64,
    /// Of what was last compiled, well or not: the same again is no news.
    digest: Option<[u8; 32]>,
    /// What the files looked like when they were last read.
    seen: Option<Fingerprint>,
    /// Looks in a row that ended without a verdict, because something went on changing.
    missed: u32,
    on_event: F,
}

impl<F: FnMut(Event)> Reloader<F> {
    /// Something changed while it was looked at; the next look comes soon.
    fn miss(&mut self) {
        self.missed += 1;
        if self.missed == MAX_MISSED {
            warn!("rules files keep changing while they are read: is something else written there?");
        }
    }

    /// Reads and compiles if the files have changed.
    fn look(&mut self) {
        if self.seen.as_ref() == Some(&self.files.fingerprint()) {
            return;
        }
        let Some((snapshot, seen)) = self.files.read(Source::read) else {
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
            if !self.files.wait_unchanged(&seen) {
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
}
