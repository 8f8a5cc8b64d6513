//! One source: its table in force, and what became of its last reading.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

use crate::rules::plans::{PlanRows, PlanSource};
use crate::telemetry::Metrics;

/// Between two looks whether requests still read a table that was replaced.
const READERS_POLL: Duration = Duration::from_millis(2);
/// Most such looks: a minute.
const MAX_READERS_POLLS: usize = 30_000;

/// The sources whose last reading failed.
pub(super) struct StaleSources {
    names: Mutex<BTreeSet<String>>,
    on_change: Box<dyn Fn(Vec<String>) + Send + Sync>,
}

impl StaleSources {
    pub fn new(on_change: impl Fn(Vec<String>) + Send + Sync + 'static) -> Self {
        Self {
            names: Mutex::default(),
            on_change: Box::new(on_change),
        }
    }

    fn set(&self, name: &str, stale: bool) {
        let mut names = self.names.lock();
        let changed = match stale {
            true => names.insert(name.to_owned()),
            false => names.remove(name),
        };
        if changed {
            // Under the lock, so that the last caller passes all names.
            (self.on_change)(names.iter().cloned().collect());
        }
    }
}

/// A source while it is read.
pub(super) struct SourceState {
    /// As the rules in force have it.
    source: Mutex<Arc<PlanSource>>,
    /// `domain/name`
    label: String,
    /// It is to be read although it has not changed.
    reread: AtomicBool,
    /// What was last wrong, so that it is logged once.
    wrong: Mutex<Option<String>>,
    metrics: Arc<Metrics>,
    stale: Arc<StaleSources>,
}

impl SourceState {
    pub fn new(source: &Arc<PlanSource>, metrics: &Arc<Metrics>, stale: &Arc<StaleSources>) -> Self {
        Self {
            label: format!("{}/{}", source.domain, source.name),
            source: Mutex::new(Arc::clone(source)),
            reread: AtomicBool::new(true),
            wrong: Mutex::default(),
            metrics: Arc::clone(metrics),
            stale: Arc::clone(stale),
        }
    }

    /// As the rules in force have it.
    pub fn source(&self) -> Arc<PlanSource> {
        Arc::clone(&self.source.lock())
    }

    /// New rules have the source, too: what was read goes on. It is read again if entries may mean something else now.
    pub fn go_on_as(&self, next: &Arc<PlanSource>) {
        let mut source = self.source.lock();
        if let Some(rows) = source.rows() {
            next.replace(rows);
        }
        let is_same = source.plans == next.plans && source.defaults == next.defaults;
        *source = Arc::clone(next);
        drop(source);
        if !is_same {
            self.reread.store(true, Ordering::Release);
        }
    }

    /// Whether it is to be read although it has not changed.
    pub fn needs_reread(&self) -> bool {
        self.reread.load(Ordering::Acquire)
    }

    /// The same; the caller reads it now.
    pub fn take_reread(&self) -> bool {
        self.reread.swap(false, Ordering::AcqRel)
    }

    /// Runs the loop that reads it, on this thread.
    pub fn block_on(&self, work: impl Future<Output = ()>) {
        match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(work),
            Err(error) => self.done(Err(format!("cannot start a runtime: {error}"))),
        }
    }

    /// It was read: the table is in force, or why not.
    pub fn done(&self, read: Result<PlanRows, String>) {
        match read {
            Ok(rows) => self.put(rows),
            Err(error) => self.failed(error),
        }
    }

    /// It has been asked for, and is as it was.
    pub fn unchanged(&self) {
        let source = self.source();
        self.record_success(&source, None);
        self.metrics.plans.loaded(&source, source.rows().as_deref());
    }

    fn put(&self, rows: PlanRows) {
        let rows = Arc::new(rows);
        let (source, old) = {
            let source = self.source.lock();
            let old = source.replace(Arc::clone(&rows));
            (Arc::clone(&source), old)
        };
        let before = old.as_ref().map(|table| table.entries());
        self.record_success(&source, Some((rows.len(), before)));
        self.metrics.plans.loaded(&source, Some(&rows));
        // Requests read a table for less than a microsecond; the last one to release it would have to free it.
        if let Some(old) = old {
            wait_until(|| Arc::strong_count(&old) == 1);
        }
    }

    /// Ends its staleness, and logs what came into force: the entries of a new table, and of the one before.
    fn record_success(&self, source: &PlanSource, read: Option<(usize, Option<usize>)>) {
        self.stale.set(&self.label, false);
        if self.wrong.lock().take().is_some() {
            // As loud as its beginning.
            tracing::warn!(source = self.label, from = %source.from, "this source of plans can be read again");
        }
        if let Some((entries, before)) = read {
            tracing::info!(source = self.label, entries, before, "plans in force");
        }
    }

    fn failed(&self, error: String) {
        let source = self.source();
        self.stale.set(&self.label, true);
        self.log_once(&source, error);
        // Last: when the metric changes, the rest can be seen.
        self.metrics.plans.failed(&source);
    }

    /// Logs what is wrong, unless that was the last thing that was logged.
    fn log_once(&self, source: &PlanSource, error: String) {
        let mut wrong = self.wrong.lock();
        if wrong.as_ref() == Some(&error) {
            return;
        }
        let entries = source.rows().map(|rows| rows.len());
        let instead = match entries {
            Some(_) => "its last good entries stay in force",
            None => "all of its values have the default plan",
        };
        tracing::error!(
            source = self.label,
            from = %source.from,
            entries,
            "this source of plans cannot be used, {instead}:\n{error}"
        );
        *wrong = Some(error);
    }

    /// No rules have the source any more. Its table is freed here, not where the last request by old rules ends.
    pub fn end(&self) {
        let source = self.source();
        self.stale.set(&self.label, false);
        self.metrics.plans.forget(&source);
        // Two: ours, and that of `self.source`.
        wait_until(|| Arc::strong_count(&source) <= 2);
    }
}

/// Waits for the last requests that read a table, on a thread that serves none.
fn wait_until(done: impl Fn() -> bool) {
    for _ in 0..MAX_READERS_POLLS {
        if done() {
            return;
        }
        thread::sleep(READERS_POLL);
    }
}
