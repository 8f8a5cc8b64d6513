//! What a stream holds, for operators.

use std::cmp::Reverse;
use std::sync::Arc;

use super::leases::{LeaseEntry, LeaseQuestion};
use super::session::Session;
use super::table::{Applies, BucketEntry};
use crate::quota::account::LeaseStand;

impl Session {
    /// Adds what this stream holds to the answer.
    pub(super) fn answer(&self, question: &LeaseQuestion) {
        let filter = &question.filter;
        let is_ours = |wanted: &Option<String>, own: &str| wanted.as_deref().is_none_or(|wanted| wanted == own);
        let mut held = Vec::new();
        if is_ours(&filter.domain, &self.domain) && is_ours(&filter.envoy, &self.name) {
            let entries = self
                .table
                .iter()
                .filter(|entry| self.is_of(entry, filter.rule.as_deref()));
            held.extend(entries.filter_map(|entry| Some((entry.account.lease()?, entry))));
        }
        let (total, sum) = (held.len() as u64, held.iter().map(|(lease, _)| lease.held).sum::<u64>());
        if held.len() > filter.limit {
            held.select_nth_unstable_by_key(filter.limit, |(lease, _)| Reverse(lease.held));
            held.truncate(filter.limit);
        }
        let envoy: Arc<str> = self.name.as_str().into();
        let view = |(lease, entry): (LeaseStand, &BucketEntry)| match &entry.applies {
            Applies::Counted(shared) => Some(LeaseEntry {
                key: shared.counter.key.clone(),
                stream: self.number,
                envoy: Arc::clone(&envoy),
                is_late: self.is_late,
                lease,
            }),
            Applies::Unlimited | Applies::NotLeasable => None,
        };
        question.add(held.into_iter().filter_map(view), total, sum);
    }

    /// Whether a bucket is counted by the rule with this path, if one is asked for.
    fn is_of(&self, entry: &BucketEntry, path: Option<&str>) -> bool {
        let (Some(path), Applies::Counted(shared)) = (path, &entry.applies) else {
            return path.is_none();
        };
        let Some(active) = self.parts.engine.active() else {
            return false;
        };
        // A rule's number means something within one generation.
        let rule = active.rule(shared.counter.rule);
        self.generation == active.generation && rule.is_some_and(|rule| &*rule.path == path)
    }
}
