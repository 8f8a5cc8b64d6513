//! The answer to a request, descriptor by descriptor.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::model::{HoldId, Outcome, RetryAfter, Window};
use crate::rules::{OnStoreError, Rule};

use super::Active;

/// The answer to one request.
#[derive(Debug)]
pub struct Decision {
    /// The overall code.
    pub over_limit: bool,
    /// One for each limit of each descriptor, in order; at least one a descriptor.
    pub statuses: SmallVec<[Status; 2]>,
    /// Set when the store could not decide and the failure mode did.
    pub failure: Option<OnStoreError>,
    /// The name of what the request holds, to be settled by it; `None` where it holds nothing.
    pub hold: Option<HoldId>,
    /// The rules that decided.
    pub active: Arc<Active>,
}

/// The answer of one limit to its descriptor.
#[derive(Debug, Clone, Copy)]
pub struct Status {
    /// Which descriptor of the request.
    pub descriptor: usize,
    /// The code as reported: a rule in shadow mode reads OK.
    pub over_limit: bool,
    /// What it is about.
    pub limit: StatusLimit,
}

/// The limit behind a status.
#[derive(Debug, Clone, Copy)]
pub enum StatusLimit {
    /// No rule applies.
    None,
    /// A rule says `unlimited`.
    Unlimited {
        /// Index of the rule.
        rule: usize,
    },
    /// Counted.
    Counted(Counted),
}

/// A counted limit and how it stands.
#[derive(Debug, Clone, Copy)]
pub struct Counted {
    /// Index of the rule; `None` = the request's own limit.
    pub rule: Option<usize>,
    /// As configured.
    pub requests_per_unit: u32,
    /// As configured.
    pub window: Window,
    /// How long the present one is, in seconds.
    pub window_seconds: u64,
    /// The counter's limit in hits.
    pub limit_hits: u64,
    /// Whether the hits were over, whatever the reported code.
    pub denied: bool,
    /// One of the quotas of which the request needs one scope's.
    pub is_quota: bool,
    /// Permits that the request holds of a `concurrency` limit, to be released when it is done; `None` where it asked
    /// for none. 0 where it passed without: in shadow mode, or by `on_store_error: allow`.
    pub permits: Option<u64>,
    /// Hits of the request are held, not counted.
    pub holds: bool,
    /// The store's answer.
    pub outcome: Outcome,
}

impl Decision {
    /// The rule behind a status.
    #[must_use]
    pub fn rule(&self, status: &Status) -> Option<&Arc<Rule>> {
        match status.limit {
            StatusLimit::Counted(Counted { rule: Some(rule), .. }) | StatusLimit::Unlimited { rule } => {
                self.active.rule(rule)
            }
            _ => None,
        }
    }

    /// The quotas that are used up, whether or not another scope's let the request pass.
    pub fn exhausted(&self) -> impl Iterator<Item = &Status> {
        self.violated()
            .filter(|(_, counted)| counted.is_quota)
            .map(|(status, _)| status)
    }

    /// The statuses that deny, each with its limit.
    pub fn violated(&self) -> impl Iterator<Item = (&Status, &Counted)> {
        self.statuses
            .iter()
            .filter(|status| status.over_limit)
            .filter_map(|status| match &status.limit {
                StatusLimit::Counted(counted) => Some((status, counted)),
                _ => None,
            })
    }

    /// The rules that let the request pass over their limit, for the upstream to know.
    pub fn marks(&self) -> impl Iterator<Item = &Status> {
        self.statuses.iter().filter(|status| {
            let is_over = matches!(&status.limit, StatusLimit::Counted(counted) if counted.denied);
            is_over && self.rule(status).is_some_and(|rule| rule.marks)
        })
    }

    /// The `concurrency` limits that had permits for the request, each with how many it holds: 0 if something else
    /// denied it, or counted nothing. Not those that it passed without a permit, in shadow mode or by another quota.
    pub fn permits(&self) -> impl Iterator<Item = (&Status, u64)> {
        self.statuses.iter().filter_map(|status| match &status.limit {
            StatusLimit::Counted(Counted {
                permits, denied: false, ..
            }) => Some((status, (*permits)?)),
            _ => None,
        })
    }

    /// What the request holds, by limit.
    pub fn holds(&self) -> impl Iterator<Item = (&Status, u64)> {
        let statuses = self.statuses.iter().filter(|_| self.hold.is_some());
        statuses.filter_map(|status| match &status.limit {
            StatusLimit::Counted(counted) if counted.holds => Some((status, counted.outcome.holds.own)),
            _ => None,
        })
    }

    /// For each descriptor, where in `statuses` the one stands that answers for it, as the API has one a descriptor: of those
    /// that deny the one that lasts longest, else the one with the least share of its limit left. One that clients are not told
    /// of answers only where no other can.
    pub fn spoken(&self) -> impl Iterator<Item = usize> {
        let mut from = 0;
        self.statuses
            .chunk_by(|one, next| one.descriptor == next.descriptor)
            .map(move |group| {
                let rank = |(_, status): &(usize, &Status)| self.rank_in_descriptor(status);
                // No group is empty.
                let (at, _) = group.iter().enumerate().min_by_key(rank).unwrap_or((0, &group[0]));
                from += group.len();
                from - group.len() + at
            })
    }

    /// The status that a single-valued header speaks of, among those that answer for their descriptors: an over one first
    /// (the one that lasts longest), else the one with the least remaining.
    #[must_use]
    pub fn tightest(&self) -> Option<(&Status, &Counted)> {
        let status = &self.statuses[self.tightest_index()?];
        match &status.limit {
            StatusLimit::Counted(counted) => Some((status, counted)),
            StatusLimit::None | StatusLimit::Unlimited { .. } => None,
        }
    }

    /// The tightest of those that clients are told of in headers.
    #[must_use]
    pub fn tightest_told(&self) -> Option<(&Status, &Counted)> {
        let index = self.tightest_of(|status| self.tells(status))?;
        match &self.statuses[index].limit {
            StatusLimit::Counted(counted) => Some((&self.statuses[index], counted)),
            StatusLimit::None | StatusLimit::Unlimited { .. } => None,
        }
    }

    /// Where [`tightest`](Self::tightest) stands in `statuses`.
    #[must_use]
    pub fn tightest_index(&self) -> Option<usize> {
        self.tightest_of(|_| true)
    }

    /// Whether clients are told in headers of the limit behind a status.
    #[must_use]
    pub fn tells(&self, status: &Status) -> bool {
        self.rule(status).is_none_or(|rule| rule.headers)
    }

    /// Orders the limits of one descriptor: the least one answers for it.
    fn rank_in_descriptor(&self, status: &Status) -> (u8, u64) {
        let is_hidden = u8::from(!self.tells(status));
        match &status.limit {
            StatusLimit::Counted(counted) if status.over_limit => {
                (is_hidden, u64::MAX - counted.retry_after_us().unwrap_or(u64::MAX))
            }
            StatusLimit::Counted(counted) => (2 + is_hidden, counted.share_left()),
            StatusLimit::None | StatusLimit::Unlimited { .. } => (4, 0),
        }
    }

    fn tightest_of(&self, takes: impl Fn(&Status) -> bool) -> Option<usize> {
        let rank = |index: usize| {
            let status = &self.statuses[index];
            match &status.limit {
                StatusLimit::Counted(counted) if status.over_limit => {
                    Some((0, u64::MAX - counted.retry_after_us().unwrap_or(u64::MAX), index))
                }
                StatusLimit::Counted(counted) => Some((1, counted.outcome.remaining, index)),
                StatusLimit::None | StatusLimit::Unlimited { .. } => None,
            }
        };
        let (_, _, index) = self
            .spoken()
            .filter(|at| takes(&self.statuses[*at]))
            .filter_map(rank)
            .min()?;
        Some(index)
    }

    /// How long to wait before the same request can pass: the longest of the violated limits; `None` when nothing was
    /// denied or no waiting helps.
    #[must_use]
    pub fn retry_after_us(&self) -> Option<u64> {
        self.retry_after_of(|_| true)
    }

    /// The same of the violated limits that `takes`; a request's own limit is always one.
    #[must_use]
    pub fn retry_after_of(&self, takes: impl Fn(&Rule) -> bool) -> Option<u64> {
        let mut longest = None;
        for (status, counted) in self.violated() {
            if !self.rule(status).is_none_or(|rule| takes(rule)) {
                continue;
            }
            longest = longest.max(Some(counted.retry_after_us()?));
        }
        longest
    }
}

impl Counted {
    /// What is left of the limit, in parts of 2^32.
    fn share_left(&self) -> u64 {
        let share = (u128::from(self.outcome.remaining) << 32) / u128::from(self.limit_hits.max(1));
        u64::try_from(share).unwrap_or(u64::MAX)
    }

    /// Microseconds until the same hits would be admitted; `None` = never.
    #[must_use]
    pub const fn retry_after_us(&self) -> Option<u64> {
        match self.outcome.retry_after {
            RetryAfter::Now => Some(0),
            RetryAfter::Micros(us) => Some(us),
            RetryAfter::Never => None,
        }
    }

    /// What `duration_until_reset` says: for a denial the time until the same request would pass (the window where
    /// that is never), else the time until the full quota is back.
    #[must_use]
    pub fn until_reset_us(&self) -> u64 {
        if self.denied {
            self.retry_after_us().unwrap_or_else(|| self.window.micros())
        } else {
            self.outcome.reset_after_us
        }
    }
}
