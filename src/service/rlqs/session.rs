//! One stream: reports in, assignments out.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures::{Stream, StreamExt};
use tokio::sync::mpsc::Sender;
use tokio::sync::watch;
use tonic::Status;

use super::actions::Actions;
use super::bucket_id;
use super::leases::LeaseQuestion;
use super::parts::QuotaParts;
use super::table::{Applies, BucketEntry, BucketTable};
use crate::algorithms::quota;
use crate::engine::{Active, QuotaRule};
use crate::model::time::SECOND_US;
use crate::proto::envoy::service::rate_limit_quota::v3 as wire;
use crate::quota::account::Account;
use crate::quota::terms::{LATE_US, REPORT_US};
use crate::telemetry::QuotaHits;
use wire::rate_limit_quota_usage_reports::BucketQuotaUsage;

/// Longest time that Envoy may take over reading a message.
const MAX_SEND: Duration = Duration::from_secs(10);
/// A stream without reports for so long is given up.
const MAX_LATE_US: u64 = 600 * SECOND_US;
/// What is due within this time is done together.
const TOGETHER: Duration = Duration::from_millis(20);
/// Buckets of a report that are done and answered before the others.
const AT_A_TIME: usize = 1000;
/// Buckets of a first report that room is made for at once, whatever it says.
const MOST_RESERVED: usize = 200_000;
/// Longest domain, in bytes.
const MAX_DOMAIN: usize = 4 << 10;
/// A report covers time, and is not that of a bucket's first request, from here on, in microseconds.
const COVERS_US: u64 = SECOND_US;

/// One stream of an Envoy.
pub(super) struct Session {
    pub(super) parts: Arc<QuotaParts>,
    /// Its number in this process.
    pub(super) number: u64,
    pub(super) name: String,
    pub(super) domain: String,
    sender: Sender<Result<wire::RateLimitQuotaResponse, Status>>,
    pub(super) table: BucketTable,
    pub(super) actions: Actions,
    /// The generation of the rules that apply to the buckets.
    pub(super) generation: u64,
    last_report_us: u64,
    pub(super) is_late: bool,
    /// The store does not answer: quotas are what `on_store_error` says.
    is_undecided: bool,
    asked: watch::Receiver<Option<Arc<LeaseQuestion>>>,
    /// The metrics of rules, by their numbers in this generation.
    hits: HashMap<usize, Arc<QuotaHits>>,
}

/// Why a stream ends.
enum StreamEnd {
    /// Envoy has closed it, or does not read.
    Gone,
    /// The server stops.
    Stopped,
}

impl Session {
    pub(super) fn new(
        parts: Arc<QuotaParts>,
        name: String,
        sender: Sender<Result<wire::RateLimitQuotaResponse, Status>>,
    ) -> Self {
        Self {
            last_report_us: parts.clock.now_us(),
            asked: parts.questions.subscribe(),
            number: parts.opened.fetch_add(1, Relaxed) + 1,
            parts,
            name,
            domain: String::new(),
            sender,
            table: BucketTable::default(),
            actions: Actions::default(),
            generation: 0,
            is_late: false,
            is_undecided: false,
            hits: HashMap::new(),
        }
    }

    /// Serves the stream until it ends.
    pub(super) async fn run<S>(mut self, mut reports: S)
    where
        S: Stream<Item = Result<wire::RateLimitQuotaUsageReports, Status>> + Send + Unpin,
    {
        let stop = self.parts.stop.clone();
        loop {
            let wait = self.wait();
            let result = tokio::select! {
                biased;
                () = stop.cancelled() => Err(StreamEnd::Stopped),
                report = reports.next() => match report {
                    Some(Ok(report)) => self.reported(report).await,
                    Some(Err(_)) | None => Err(StreamEnd::Gone),
                },
                Ok(()) = self.asked.changed() => {
                    let question = self.asked.borrow_and_update().clone();
                    question.iter().for_each(|question| self.answer(question));
                    Ok(())
                }
                () = tokio::time::sleep(wait) => self.came_due().await,
            };
            match result {
                Ok(()) => {}
                Err(StreamEnd::Stopped) => {
                    tracing::debug!(envoy = self.name, "an RLQS stream is handed over");
                    return;
                }
                Err(StreamEnd::Gone) => return,
            }
        }
    }

    /// Time until something is due.
    fn wait(&self) -> Duration {
        let now_us = self.parts.clock.now_us();
        let late_us = self.last_report_us + if self.is_late { MAX_LATE_US } else { LATE_US };
        let due_us = self.table.first_due_us().map_or(late_us, |at_us| late_us.min(at_us));
        Duration::from_micros(due_us.saturating_sub(now_us)).max(TOGETHER)
    }

    /// Takes in a message of reports.
    async fn reported(&mut self, message: wire::RateLimitQuotaUsageReports) -> Result<(), StreamEnd> {
        let now_us = self.parts.clock.now_us();
        if self.domain.is_empty() && message.domain.len() <= MAX_DOMAIN {
            self.domain.clone_from(&message.domain);
        }
        if self.domain.is_empty() || !message.domain.is_empty() && message.domain != self.domain {
            self.left_out("domain");
            return Ok(());
        }
        let Some(active) = self.parts.engine.active() else {
            return Ok(());
        };
        self.last_report_us = now_us;
        self.late(false);
        if self.generation != active.generation {
            self.apply_rules(&active, now_us);
        }
        if self.table.is_empty() {
            // An Envoy that comes back tells all that it has in one report.
            self.table.reserve(message.bucket_quota_usages.len().min(MOST_RESERVED));
        }
        let mut places = Vec::with_capacity(message.bucket_quota_usages.len());
        for usage in &message.bucket_quota_usages {
            places.extend(self.usage(&active, usage, now_us));
        }
        self.parts.metrics.rlqs.reports.inc_by(places.len() as u64);
        // A bucket that is reported twice has one step.
        places.sort_unstable();
        places.dedup();
        let sent = self.serve(&places).await;
        let took = Duration::from_micros(self.parts.clock.now_us().saturating_sub(now_us));
        self.parts.metrics.rlqs.duration.observe(took.as_secs_f64());
        sent
    }

    /// Takes in the report of one bucket; its place, if something may follow from it.
    fn usage(&mut self, active: &Arc<Active>, usage: &BucketQuotaUsage, now_us: u64) -> Option<u32> {
        let Some(entries) = bucket_id::split(&usage.bucket_id) else {
            self.left_out("malformed");
            return None;
        };
        let elapsed_us = usage.time_elapsed.as_ref().map_or(0, micros);
        let hash = self.table.hash(&entries);
        let (place, elapsed_us) = match self.table.find(hash, &entries) {
            // Envoy cuts fractions of seconds off: between two reports, 5.00 s apart, it says 4 as often as 5.
            Some(place) => (place, elapsed_us.max((elapsed_us + SECOND_US).min(REPORT_US))),
            None => {
                let entry = self.new_bucket(active, usage, &entries, elapsed_us, now_us)?;
                (self.table.insert(hash, entry)?, elapsed_us)
            }
        };
        let engine = &self.parts.engine;
        let entry = self.table.get_mut(place)?;
        let (allowed, denied) = (usage.num_requests_allowed, usage.num_requests_denied);
        let before = entry.account.demand().unwrap_or(0);
        let unused = entry.account.report(elapsed_us, allowed, denied, now_us);
        let after = entry.account.demand().unwrap_or(0);
        if let Applies::Counted(shared) = &entry.applies {
            shared.demand_changed(before, after);
            shared.hits.used.inc_by(allowed);
            shared.hits.denied.inc_by(denied);
            engine.quota_used(active, &shared.counter, allowed, denied);
            for unused in &unused {
                shared.hits.returned.inc_by(unused.hits);
                engine.quota_return(&shared.counter, unused);
            }
        }
        Some(place)
    }

    /// A bucket that is new on the stream.
    fn new_bucket(
        &mut self,
        active: &Arc<Active>,
        usage: &BucketQuotaUsage,
        entries: &[&[u8]],
        elapsed_us: u64,
        now_us: u64,
    ) -> Option<BucketEntry> {
        let Some(bucket) = bucket_id::read(entries) else {
            self.left_out("malformed");
            return None;
        };
        if !self.parts.take_bucket() {
            self.left_out("too_many");
            return None;
        }
        let mut account = Account::new(now_us);
        let applies = self.applies(active, self.parts.engine.quota_rule(active, &self.domain, bucket));
        if let (Applies::Counted(shared), Some(began_us)) = (&applies, self.parts.began_us) {
            // Counters began with this process. Envoys that had this bucket before come back by their next report, and what
            // they have used counts as all that there is.
            account.wait_until(began_us + LATE_US);
            let counts_us = began_us + shared.counter.limit.hold_us;
            if elapsed_us >= COVERS_US && now_us < counts_us && shared.mark_past_counted() {
                account.owe(quota(&shared.counter.limit));
            }
        }
        Some(BucketEntry::new(&usage.bucket_id, applies, account))
    }

    fn left_out(&self, reason: &'static str) {
        self.parts.left_out(reason, &self.name, &self.domain);
    }

    /// What a rule means for the stream.
    fn applies(&mut self, active: &Active, rule: QuotaRule) -> Applies {
        match rule {
            QuotaRule::Unlimited => Applies::Unlimited,
            QuotaRule::NotEnabled | QuotaRule::NotLeasable => {
                self.left_out("not_leasable");
                Applies::NotLeasable
            }
            QuotaRule::Counted(counter) => {
                let (parts, known, rule) = (&self.parts, &mut self.hits, counter.rule);
                let find = || {
                    let rule = active.rule(rule).map(|rule| (&*rule.domain, &*rule.path));
                    let (domain, path) = rule.unwrap_or_default();
                    Arc::new(parts.metrics.rlqs.hits(domain, path))
                };
                let hits = || Arc::clone(known.entry(rule).or_insert_with(find));
                Applies::Counted(parts.shared.join(*counter, hits))
            }
        }
    }

    /// The rules have changed: finds those of all buckets again. A lease under another limit ends with its hold.
    fn apply_rules(&mut self, active: &Active, now_us: u64) {
        self.generation = active.generation;
        self.hits.clear();
        let mut table = std::mem::take(&mut self.table);
        for (_, entry) in table.iter_mut() {
            let Some(bucket) = bucket_id::split(&entry.id).and_then(|entries| bucket_id::read(&entries)) else {
                continue;
            };
            let applies = self.applies(active, self.parts.engine.quota_rule(active, &self.domain, bucket));
            let before = std::mem::replace(&mut entry.applies, applies);
            let demand = entry.account.demand().unwrap_or(0);
            let goes_on = match (&before, &entry.applies) {
                (Applies::Counted(before), Applies::Counted(after)) => {
                    after.demand_changed(0, demand);
                    before.counter.key == after.counter.key && before.counter.limit == after.counter.limit
                }
                _ => false,
            };
            if !goes_on {
                entry.account.restart(now_us);
                entry.told_until_us = 0;
            }
            if let Applies::Counted(before) = before {
                self.parts.shared.leave(&before, demand);
            }
        }
        self.table = table;
    }

    /// Something is due without a report: a lease has ended, a denial is over, or the Envoy is late.
    async fn came_due(&mut self) -> Result<(), StreamEnd> {
        let now_us = self.parts.clock.now_us();
        let silent_us = now_us.saturating_sub(self.last_report_us);
        if silent_us >= MAX_LATE_US {
            return Err(StreamEnd::Gone);
        }
        let mut places: Vec<u32> = std::iter::from_fn(|| self.table.take_due(now_us)).collect();
        if silent_us >= LATE_US && !self.is_late && !self.table.is_empty() {
            self.late(true);
            places.clear();
            for (place, entry) in self.table.iter_mut() {
                if let Applies::Counted(shared) = &entry.applies {
                    entry.account.freeze(shared.counter.limit.window_us, now_us);
                    places.push(place);
                }
            }
        } else if silent_us >= LATE_US {
            self.is_late = true;
        }
        let is_due = |entry: &BucketEntry| entry.account.due_us().is_some_and(|due_us| due_us <= now_us);
        places.retain(|place| self.table.get(*place).is_some_and(is_due));
        self.serve(&places).await
    }

    /// Does what is to be done for these buckets, and tells Envoy.
    async fn serve(&mut self, places: &[u32]) -> Result<(), StreamEnd> {
        for places in places.chunks(AT_A_TIME) {
            self.step(places.to_vec()).await;
            self.send().await?;
        }
        Ok(())
    }

    fn late(&mut self, is_late: bool) {
        let gauge = &self.parts.metrics.rlqs.late_streams;
        match (self.is_late && !self.table.is_empty(), is_late) {
            (false, true) => {
                gauge.inc();
                tracing::warn!(
                    envoy = self.name,
                    "an Envoy reports no usage: what it holds stays counted, and it gets no more"
                );
            }
            (true, false) => gauge.dec(),
            _ => {}
        }
        self.is_late = is_late;
    }

    /// Whether quotas are what `on_store_error` says now.
    pub(super) fn undecided(&mut self, is_undecided: bool) {
        let gauge = &self.parts.metrics.rlqs.undecided_streams;
        match (self.is_undecided, is_undecided) {
            (false, true) => gauge.inc(),
            (true, false) => gauge.dec(),
            _ => {}
        }
        self.is_undecided = is_undecided;
    }

    async fn send(&mut self) -> Result<(), StreamEnd> {
        for message in self.actions.take() {
            let sent = tokio::time::timeout(MAX_SEND, self.sender.send(Ok(message))).await;
            if !matches!(sent, Ok(Ok(()))) {
                return Err(StreamEnd::Gone);
            }
        }
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.late(false);
        self.undecided(false);
        let table = std::mem::take(&mut self.table);
        table.iter().for_each(|entry| self.forget(entry));
        self.parts.closed();
    }
}

/// A duration of the wire; a negative one counts as none.
fn micros(duration: &prost_types::Duration) -> u64 {
    let seconds = u64::try_from(duration.seconds).unwrap_or(0);
    let nanos = u64::try_from(duration.nanos).unwrap_or(0);
    seconds.saturating_mul(SECOND_US).saturating_add(nanos / 1000)
}
