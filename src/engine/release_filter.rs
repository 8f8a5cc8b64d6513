//! The release filter: Envoy makes its call on stream done for denied requests, too. Where that call has a fixed number of
//! hits, it would release permits that the request never had.
//!
//! So the filter notes the permits that such a request was denied, and reduces the next releases by as many. A release of
//! the number in an answer's metadata, which carries the [`PERMIT_TAG`], is never reduced. Each process has its own notes: of
//! several replicas, one can get the request and another its release, and then only tagged releases are exact.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use parking_lot::Mutex;

use crate::model::time::SECOND_US;
use crate::model::{Algorithm, Clock, CounterKey, Hits, Transaction};

use super::plan::{Plan, PlanEntry};
use super::status::{Status, StatusLimit};

/// Added to the number of permits in an answer's metadata, and so to the release with that number, which gives back exactly
/// what the request had. More permits than any request takes, and small enough for Envoy, which makes no call for a
/// number above 10^9.
pub const PERMIT_TAG: u64 = 1 << 29;

/// Microseconds between two searches for expired notes while the bound is reached, since each reads all notes.
const SWEEP_PAUSE_US: u64 = SECOND_US;

/// The notes.
#[derive(Debug)]
pub(super) struct ReleaseFilter {
    notes: Mutex<DenialNotes>,
    /// Most counters with notes; denials by more counters are not noted.
    max_keys: usize,
}

#[derive(Debug, Default)]
struct DenialNotes {
    by_key: HashMap<CounterKey, Note>,
    /// When expired notes were last dropped.
    swept_us: Option<u64>,
}

impl DenialNotes {
    /// Makes room for one more note, if that is possible: drops expired ones if there are too many.
    fn make_room(&mut self, max_keys: usize, now_us: u64) -> bool {
        if self.by_key.len() < max_keys {
            return true;
        }
        if self
            .swept_us
            .is_none_or(|swept| now_us.saturating_sub(swept) >= SWEEP_PAUSE_US)
        {
            self.swept_us = Some(now_us);
            self.by_key.retain(|_, note| note.until_us > now_us);
        }
        self.by_key.len() < max_keys
    }
}

#[derive(Debug)]
struct Note {
    hits: u64,
    /// When it expires: a release comes at the end of its request, which lasts no longer than the limit's window.
    until_us: u64,
}

impl ReleaseFilter {
    pub(super) fn new(max_keys: usize) -> Self {
        Self {
            notes: Mutex::default(),
            max_keys,
        }
    }

    /// Notes the permits that a request asked for and did not get, since its caller will release them all the same. Returns
    /// `false` if not all could be noted: the release of the others will free a permit that another request holds.
    pub(super) fn note(&self, plan: &Plan, statuses: &[Status], clock: &dyn Clock) -> bool {
        let mut all = true;
        for (entry, status) in plan.entries.iter().zip(statuses) {
            let (PlanEntry::Counted { check, .. }, StatusLimit::Counted(counted)) = (entry, status.limit) else {
                continue;
            };
            let Some(check) = plan.transaction.checks.get(*check) else {
                continue;
            };
            if let (Hits::Acquire(hits), Some(0)) = (check.hits, counted.permits) {
                all &= self.add(&check.key, hits, clock.now_us(), check.limit.window_us);
            }
        }
        all
    }

    fn add(&self, key: &CounterKey, hits: u64, now_us: u64, window_us: u64) -> bool {
        let until_us = now_us.saturating_add(window_us);
        let mut notes = self.notes.lock();
        if !notes.by_key.contains_key(key) && !notes.make_room(self.max_keys, now_us) {
            return false;
        }
        let note = notes.by_key.entry(key.clone()).or_insert(Note { hits: 0, until_us });
        if note.until_us <= now_us {
            note.hits = 0;
        }
        (note.hits, note.until_us) = (note.hits.saturating_add(hits), until_us);
        true
    }

    /// Reduces a transaction's releases by the permits that were denied before. `from_all`: its caller releases for all
    /// requests, also for denied ones.
    pub(super) fn reduce(&self, transaction: &mut Transaction, from_all: bool, clock: &dyn Clock) {
        for check in &mut transaction.checks {
            let (Hits::Refund(hits), Algorithm::Concurrency) = (&mut check.hits, check.limit.algorithm) else {
                continue;
            };
            *hits = match hits.checked_sub(PERMIT_TAG) {
                Some(permits) => permits,
                None if from_all => *hits - self.take(&check.key, *hits, clock.now_us()),
                None => *hits,
            };
        }
    }

    /// Removes up to `hits` permits from a counter's note; returns how many, by which a release is reduced.
    fn take(&self, key: &CounterKey, hits: u64, now_us: u64) -> u64 {
        let mut notes = self.notes.lock();
        let Entry::Occupied(mut note) = notes.by_key.entry(key.clone()) else {
            return 0;
        };
        if note.get().until_us <= now_us {
            note.remove();
            return 0;
        }
        let taken = hits.min(note.get().hits);
        note.get_mut().hits -= taken;
        if note.get().hits == 0 {
            note.remove();
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algorithms::limit::{LimitSpec, build};
    use crate::model::{AlgorithmKind, Check, Enforcement, ManualClock, Unit, Window};

    /// What is left of a release of so many hits.
    fn released(filter: &ReleaseFilter, hits: u64, from_all: bool, now_us: u64) -> u64 {
        let limit = build(&LimitSpec::new(AlgorithmKind::Concurrency, 5, Window::of(Unit::Minute))).unwrap();
        let mut transaction = Transaction::default();
        transaction.checks.push(Check {
            key: CounterKey::from_raw("a"),
            limit,
            hits: Hits::Refund(hits),
            enforcement: Enforcement::Enforce,
        });
        filter.reduce(&mut transaction, from_all, &ManualClock::new(now_us));
        match transaction.checks[0].hits {
            Hits::Refund(hits) => hits,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn as_many_releases_as_denials_are_left_out_and_no_more() {
        let filter = ReleaseFilter::new(100);
        let key = CounterKey::from_raw("a");
        filter.add(&key, 2, 0, 60 * SECOND_US);
        filter.add(&key, 1, 0, 60 * SECOND_US);
        assert_eq!(released(&filter, 1, true, 1), 0);
        // A caller that releases only what it has got, and a tagged release, are not reduced.
        assert_eq!(released(&filter, 1, false, 1), 1);
        assert_eq!(released(&filter, PERMIT_TAG + 3, true, 1), 3);
        assert_eq!(released(&filter, PERMIT_TAG + 3, false, 1), 3);
        assert_eq!(released(&filter, 4, true, 1), 2);
        assert_eq!(released(&filter, 1, true, 1), 1);
        assert!(filter.notes.lock().by_key.is_empty());
    }

    #[test]
    fn a_note_ends_with_the_window() {
        let filter = ReleaseFilter::new(100);
        let key = CounterKey::from_raw("a");
        filter.add(&key, 2, 0, SECOND_US);
        filter.add(&key, 1, SECOND_US, SECOND_US);
        assert_eq!(released(&filter, 2, true, SECOND_US + 1), 1);
        filter.add(&key, 2, 2 * SECOND_US, SECOND_US);
        assert_eq!(released(&filter, 2, true, 3 * SECOND_US), 2);
    }

    #[test]
    fn notes_are_bounded_and_those_that_have_ended_make_room() {
        let filter = ReleaseFilter::new(100);
        for n in 0..110 {
            let noted = filter.add(&CounterKey::from_raw(&n.to_string()), 1, 0, SECOND_US);
            assert_eq!(noted, n < 100, "{n}");
        }
        assert_eq!(filter.notes.lock().by_key.len(), 100);
        filter.add(&CounterKey::from_raw("a"), 1, SECOND_US, SECOND_US);
        assert_eq!(filter.notes.lock().by_key.len(), 1);
    }
}
