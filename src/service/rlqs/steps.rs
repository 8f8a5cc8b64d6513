//! The steps of a stream's accounts: asked of the store, and answered.

use std::sync::Arc;

use futures::StreamExt;

use super::blanket::idle_after_us;
use super::buckets::SharedBucket;
use super::session::Session;
use super::table::Applies;
use crate::model::time::SECOND_US;
use crate::quota::account::{Assignment, QuotaStand, QuotaStep};
use crate::quota::terms::{PRECISION, REPORT_US};

/// Steps that are asked of the store at the same time.
const AT_ONCE: usize = 64;
/// How often a lease that was too large for what is left is asked for again, smaller.
const TRIES: usize = 3;

/// A step that the bucket at a place needs.
struct OpenStep {
    place: u32,
    shared: Arc<SharedBucket>,
    step: QuotaStep,
}

/// A step that has been answered. Envoy has the answer no earlier than `sent_us`.
struct Answered {
    asked: OpenStep,
    stand: QuotaStand,
    sent_us: u64,
}

impl Session {
    /// Does what is to be done for these buckets.
    pub(super) async fn step(&mut self, mut places: Vec<u32>) {
        let now_us = self.parts.clock.now_us();
        places.retain(|place| !self.blanket(*place, now_us));
        for is_last in (1..=TRIES).map(|number| number == TRIES) {
            let steps = self.steps(&places);
            places.clear();
            if steps.is_empty() {
                return;
            }
            let answers = self.ask(steps).await;
            self.undecided(answers.iter().any(|answered| answered.stand.failure.is_some()));
            for answered in &answers {
                if self.answered(answered, is_last) {
                    places.push(answered.asked.place);
                }
            }
        }
    }

    /// Asks the store. What it need not be waited for is done here and now: a future for each step would cost as much as the step.
    async fn ask(&self, steps: Vec<OpenStep>) -> Vec<Answered> {
        let (engine, clock) = (&self.parts.engine, &self.parts.clock);
        let now_us = clock.now_us();
        let mut answers = Vec::with_capacity(steps.len());
        let mut waiting = Vec::new();
        for asked in steps {
            match engine.quota_step_now(&asked.shared.counter, &asked.step, now_us) {
                Some(stand) => answers.push(Answered {
                    asked,
                    stand,
                    sent_us: now_us,
                }),
                None => waiting.push(asked),
            }
        }
        let sent_us = clock.now_us();
        answers.iter_mut().for_each(|answered| answered.sent_us = sent_us);
        let wait = |asked: OpenStep| async move {
            let stand = engine.quota_step(&asked.shared.counter, &asked.step).await;
            let sent_us = clock.now_us();
            Answered { asked, stand, sent_us }
        };
        let mut waited = futures::stream::iter(waiting).map(wait).buffer_unordered(AT_ONCE);
        while let Some(answered) = waited.next().await {
            answers.push(answered);
        }
        answers
    }

    /// The steps that these buckets need now.
    fn steps(&self, places: &[u32]) -> Vec<OpenStep> {
        let now_us = self.parts.clock.now_us();
        let streams = self.parts.streams();
        let step = |place: &u32| {
            let entry = self.table.get(*place)?;
            let Applies::Counted(shared) = &entry.applies else {
                return None;
            };
            let counter = &shared.counter;
            let unused_us = entry.account.idle_us(now_us);
            let is_idle = counter.is_shadow || unused_us >= idle_after_us(counter.limit.window_us);
            let situation = shared.situation(&entry.account, streams, now_us);
            let step = entry.account.step(&situation, is_idle, now_us)?;
            Some(OpenStep {
                place: *place,
                shared: Arc::clone(shared),
                step,
            })
        };
        places.iter().filter_map(step).collect()
    }

    /// Takes in an answer; whether to ask again, for less.
    fn answered(&mut self, answered: &Answered, is_last: bool) -> bool {
        let Answered { asked, stand, sent_us } = answered;
        let OpenStep { place, shared, step } = asked;
        let Some(entry) = self.table.get_mut(*place) else {
            return false;
        };
        if let Some(failure) = stand.failure {
            self.parts.metrics.rlqs.undecided(failure.name()).inc();
        } else {
            shared.remains(stand.remaining, *sent_us);
        }
        let poll_us = poll_us(shared.counter.limit.window_us, entry.account.demand());
        let mut assignment = entry.account.answered(step, stand, *sent_us, poll_us);
        let is_denied = step.more.hits > 0 && stand.got == 0;
        if is_denied && stand.failure.is_none() && stand.remaining > 0 && !is_last {
            entry.account.wait_until(0);
            return true;
        }
        if entry.account.is_urgent() && !is_last {
            return true;
        }
        let due_us = entry.account.due_us();
        match assignment {
            Assignment::Lease(_) | Assignment::Extend(_) => {
                shared.hits.granted.inc_by(stand.got);
                entry.told_until_us = 0;
            }
            Assignment::Deny { ttl_s } | Assignment::Allow { ttl_s } => {
                if entry.told_until_us > sent_us + 2 * REPORT_US {
                    assignment = Assignment::Nothing;
                } else {
                    entry.told_until_us = sent_us + ttl_s * SECOND_US;
                }
            }
            Assignment::Nothing => {}
        }
        self.actions.assign(&entry.id, &assignment);
        self.table.schedule(*place, due_us);
        false
    }
}

/// The longest wait after a denial: a slice, where somebody asks; others may have given something back by then.
fn poll_us(window_us: u64, demand: Option<u64>) -> u64 {
    match demand {
        Some(0) => REPORT_US,
        _ => (window_us / u64::from(PRECISION)).clamp(SECOND_US / 4, REPORT_US),
    }
}
