//! The answer to a request, descriptor by descriptor.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::model::{AlgorithmKind, HoldId, Outcome, RetryAfter, Window};
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
    /// The id of the request's holds, by which they are settled; `None` if it has none.
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
    /// The limit.
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

/// A counted limit and its counter's state.
#[derive(Debug, Clone, Copy)]
pub struct Counted {
    /// Index of the rule; `None` = the request's own limit.
    pub rule: Option<usize>,
    /// As configured.
    pub requests_per_unit: u32,
    /// As configured.
    pub window: Window,
    /// The length of the present window, in seconds.
    pub window_seconds: u64,
    /// The counter's limit in hits.
    pub limit_hits: u64,
    /// How it counts.
    pub algorithm: AlgorithmKind,
    /// Whether the hits were over, whatever the reported code.
    pub denied: bool,
    /// It is a quota: the request passes if all quotas of any one scope allow it.
    pub is_quota: bool,
    /// Permits that the request holds of a `concurrency` limit, to be released when it is done; `None` where it asked
    /// for none. 0 where it passed without: in shadow mode, or by `on_store_error: allow`.
    pub permits: Option<u64>,
    /// Hits of the request are held, not counted.
    pub holds: bool,
    /// The store's answer.
    pub outcome: Outcome,
}

impl Status {
    /// The status of a descriptor that no limit applies to.
    pub(super) const fn free(descriptor: usize) -> Self {
        Self {
            descriptor,
            over_limit: false,
            limit: StatusLimit::None,
        }
    }
}

impl Decision {
    /// The rule of a status.
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

    /// The statuses of `marks` rules that were over their limit: they let the request pass, and the upstream is informed.
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

    /// The hits that the request holds, by limit.
    pub fn holds(&self) -> impl Iterator<Item = (&Status, u64)> {
        let statuses = self.statuses.iter().filter(|_| self.hold.is_some());
        statuses.filter_map(|status| match &status.limit {
            StatusLimit::Counted(counted) if counted.holds => Some((status, counted.outcome.holds.own)),
            _ => None,
        })
    }

    /// For each descriptor, the index of the status that is reported for it, since the API has one a descriptor: of those that
    /// deny the one that lasts longest, else the one with the least share of its limit left. Statuses of rules with
    /// `headers: false` are reported only if there is no other.
    pub fn reported(&self) -> impl Iterator<Item = usize> {
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

    /// The reported status that a single-valued header shows: one that is over its limit (the one that lasts longest), else the
    /// one with the least remaining.
    #[must_use]
    pub fn tightest(&self) -> Option<(&Status, &Counted)> {
        let status = &self.statuses[self.tightest_index()?];
        match &status.limit {
            StatusLimit::Counted(counted) => Some((status, counted)),
            StatusLimit::None | StatusLimit::Unlimited { .. } => None,
        }
    }

    /// The tightest of the statuses that are shown in headers.
    #[must_use]
    pub fn tightest_in_headers(&self) -> Option<(&Status, &Counted)> {
        let index = self.tightest_of(|status| self.is_in_headers(status))?;
        match &self.statuses[index].limit {
            StatusLimit::Counted(counted) => Some((&self.statuses[index], counted)),
            StatusLimit::None | StatusLimit::Unlimited { .. } => None,
        }
    }

    /// The index of [`tightest`](Self::tightest) in `statuses`.
    #[must_use]
    pub fn tightest_index(&self) -> Option<usize> {
        self.tightest_of(|_| true)
    }

    /// Whether the limit of a status is shown in headers.
    #[must_use]
    pub fn is_in_headers(&self, status: &Status) -> bool {
        self.rule(status).is_none_or(|rule| rule.headers)
    }

    /// The order of the statuses of one descriptor: the least one is reported.
    fn rank_in_descriptor(&self, status: &Status) -> (u8, u64) {
        let is_hidden = u8::from(!self.is_in_headers(status));
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
            .reported()
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

    /// [`retry_after_us`](Self::retry_after_us) of those violated limits whose rules `takes` selects, and of the request's own
    /// limits.
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

    /// The value of `duration_until_reset`: for a denial the time until the same request would pass (the window where
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
