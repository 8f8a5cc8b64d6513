//! The plan of a request: its rules, and the checks of its transaction.

use smallvec::SmallVec;

use crate::algorithms::held::plain;
use crate::algorithms::limit::{self, LimitSpec};
use crate::model::check::passes;
use crate::model::key::{Owner, Part, counter_key};
use crate::model::{
    AlgorithmKind, Check, Clock, Descriptor, Enforcement, Hits, HoldId, Limit, Request, Settles, Transaction, Window,
};
use crate::rules::{Candidate, Matched, OnStoreError, Rule};

use super::active::Active;
use super::candidate::CandidateChecks;
use super::hits::{gives_back_permits_only, hits, holds_mean, is_post_paid, of_mean};
use super::keys::rule_key;
use super::options::EngineOptions;
use super::scopes::QuotaScopes;
use super::status::{Status, StatusLimit};

/// Why a request gets no decision.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// No rules are in force yet.
    #[error("no rate limit configuration loaded")]
    NoConfiguration,
    /// More requests are under way than `--max-concurrent` allows.
    #[error("overloaded: too many requests are under way")]
    Overloaded,
    /// `domain` is empty.
    #[error("rate limit domain must not be empty")]
    EmptyDomain,
    /// `descriptors` is empty.
    #[error("rate limit descriptor list must not be empty")]
    NoDescriptors,
    /// The request's own limit cannot be counted.
    #[error("descriptors[{index}].limit: {reason}")]
    BadOverride {
        /// Which descriptor.
        index: usize,
        /// What is wrong with it and how to fix it.
        reason: String,
    },
}

/// A request's rules and the transaction for the store.
pub(super) struct Plan {
    pub transaction: Transaction,
    /// One for each limit of each descriptor, in order; at least one a descriptor.
    pub entries: SmallVec<[PlanEntry; 2]>,
    /// For each entry, its descriptor.
    pub of: SmallVec<[usize; 2]>,
    /// The checks of the rules' candidates; `None` if no rule has one.
    pub candidates: Option<Box<CandidateChecks>>,
    /// The id of all holds of the request; `None` if it asks for none.
    pub hold: Option<HoldId>,
    scopes: QuotaScopes,
}

/// How one limit of a descriptor is decided.
#[derive(Debug, Clone, Copy)]
pub(super) enum PlanEntry {
    /// No rule, or one that another rule of the request replaces.
    Free,
    /// A rule that says `unlimited`, or whose plan does: `by_default` as below.
    Unlimited { rule: usize, by_default: bool },
    /// Counted by the transaction's check of this index.
    Counted {
        check: usize,
        rule: Option<usize>,
        limit_hits: u64,
        algorithm: AlgorithmKind,
        requests_per_unit: u32,
        window: Window,
        window_seconds: u64,
        /// Without the global shadow mode.
        enforcement: Enforcement,
        /// Its hits are a post-paid cost that is not counted if the check is denied.
        forgets: bool,
        /// The rule's plan source has no plan for the value, so its default plan applies.
        by_default: bool,
    },
}

/// The input of [`plan`].
#[derive(Clone, Copy)]
pub(super) struct PlanInput<'r> {
    pub options: &'r EngineOptions,
    pub active: &'r Active,
    pub request: &'r Request,
    pub clock: &'r dyn Clock,
}

/// Finds the rules of a request's descriptors, and builds its transaction.
///
/// # Errors
/// [`RequestError`] when the request is not valid.
pub(super) fn plan(input: PlanInput<'_>) -> Result<Plan, RequestError> {
    let PlanInput { active, request, .. } = input;
    if request.domain.is_empty() {
        return Err(RequestError::EmptyDomain);
    }
    if request.descriptors.is_empty() {
        return Err(RequestError::NoDescriptors);
    }
    let mut plan = Plan {
        transaction: Transaction::default(),
        entries: SmallVec::new(),
        of: SmallVec::new(),
        candidates: None,
        hold: None,
        scopes: QuotaScopes::default(),
    };
    let Some(domain) = active.rules.domains.get(request.domain.as_str()) else {
        (0..request.descriptors.len()).for_each(|index| plan.add(index, PlanEntry::Free));
        return Ok(plan);
    };
    let find = |descriptor: &Descriptor| match descriptor.limit {
        Some(_) => None,
        None => domain.find(&descriptor.entries),
    };
    let matches: SmallVec<[Option<Matched<'_>>; 2]> = request.descriptors.iter().map(find).collect();
    let replaced = replaced(&matches);
    for (index, (descriptor, matched)) in request.descriptors.iter().zip(&matches).enumerate() {
        if descriptor.limit.is_some() {
            let entry = plan.add_override(input, index)?;
            plan.add(index, entry);
            continue;
        }
        let before = plan.entries.len();
        for rule in matched.iter().flat_map(|matched| matched.rules) {
            if let (Some(matched), false) = (matched, replaced.contains(&&*rule.name)) {
                let entry = plan.add_rule(input, descriptor, matched, rule);
                plan.add(index, entry);
            }
        }
        if plan.entries.len() == before {
            plan.add(index, PlanEntry::Free);
        }
    }
    plan.enforce_common_quotas(&request.descriptors);
    Ok(plan)
}

/// The names of the rules that another matched rule of the request replaces. They do not apply, and their counters do not
/// change.
fn replaced<'r>(matches: &[Option<Matched<'r>>]) -> Vec<&'r str> {
    let rules = matches.iter().flatten().flat_map(|matched| matched.rules);
    rules
        .flat_map(|rule| rule.replaces.iter())
        .map(String::as_str)
        .collect()
}

impl Plan {
    fn add(&mut self, descriptor: usize, entry: PlanEntry) {
        self.entries.push(entry);
        self.of.push(descriptor);
    }

    fn add_rule(
        &mut self,
        input: PlanInput<'_>,
        descriptor: &Descriptor,
        matched: &Matched<'_>,
        rule: &Rule,
    ) -> PlanEntry {
        let PlanInput {
            options,
            active,
            request,
            ..
        } = input;
        if let Some(candidate) = &rule.candidate {
            self.add_candidate(input, descriptor, matched, (rule.index, candidate));
        }
        let (amount, by_default) = rule.amount_for(&descriptor.entries, matched, || input.clock.now_us());
        let Some(limit) = amount.limit else {
            return PlanEntry::Unlimited {
                rule: rule.index,
                by_default,
            };
        };
        let key = rule_key(options, rule.owner(), &limit, &request.domain, descriptor, matched);
        let enforcement = match () {
            () if rule.shadow_mode || rule.marks => Enforcement::Shadow,
            () if options.quota_mode || rule.quota_mode => {
                Enforcement::Quota(self.scopes.scope_of(&descriptor.entries))
            }
            () => Enforcement::Enforce,
        };
        self.transaction.exact |= rule.lease == Some(false) || limit.hold_us > 0;
        let settles = descriptor.settles != Settles::Nothing;
        // The rule's holds are quota leases of Envoys; a request's hits are counted, not held.
        let asked = if rule.rlqs { plain(&limit) } else { limit };
        let is_post_paid = is_post_paid(&asked, descriptor, active.usage(rule.index));
        let is_charge = amount.count_denied || options.charge_after_peek && is_post_paid;
        let hits = hits(request, descriptor, &asked, is_charge);
        let hits = match (amount.hold_first, active.usage(rule.index)) {
            (Some(first), Some(usage)) => of_mean(
                if holds_mean(request, descriptor) && !settles {
                    Hits::Peek
                } else {
                    hits
                },
                usage.mean_cost(first),
            ),
            _ => self.held(hits, &asked, input),
        };
        let hits = match hits {
            Hits::Refund(_) if gives_back_permits_only(matched, &limit) => Hits::Refund(0),
            hits => hits,
        };
        let check = self.push(Check {
            key,
            limit,
            hits,
            enforcement: options.in_force(enforcement),
        });
        PlanEntry::Counted {
            check,
            rule: Some(rule.index),
            limit_hits: limit.hits,
            algorithm: limit.algorithm.kind(),
            requests_per_unit: amount.requests_per_unit,
            window: amount.window,
            window_seconds: amount.window.seconds_at(|| input.clock.now_us()),
            enforcement,
            forgets: is_post_paid && !is_charge,
            by_default,
        }
    }

    fn add_candidate(
        &mut self,
        input: PlanInput<'_>,
        descriptor: &Descriptor,
        matched: &Matched<'_>,
        (rule, candidate): (usize, &Candidate),
    ) {
        let PlanInput {
            options,
            active,
            request,
            ..
        } = input;
        let limit = candidate.limit;
        let is_charge =
            candidate.count_denied || options.charge_after_peek && is_post_paid(&limit, descriptor, active.usage(rule));
        let hits = self.held(hits(request, descriptor, &limit, is_charge), &limit, input);
        let candidates = self.candidates.get_or_insert_default();
        let mut check = Check {
            key: rule_key(options, Owner::Candidate, &limit, &request.domain, descriptor, matched),
            limit,
            hits,
            enforcement: Enforcement::Shadow,
        };
        join_settlements(&mut candidates.transaction, &mut check);
        candidates.transaction.checks.push(check);
        candidates.of.push((self.entries.len(), rule));
    }

    fn add_override(&mut self, input: PlanInput<'_>, index: usize) -> Result<PlanEntry, RequestError> {
        let PlanInput {
            options,
            active,
            request,
            ..
        } = input;
        let descriptor = &request.descriptors[index];
        let Some(wanted) = descriptor.limit else {
            return Ok(PlanEntry::Free);
        };
        let limit = override_limit(options, wanted.requests_per_unit, wanted.window)
            .map_err(|reason| RequestError::BadOverride { index, reason })?;
        let entries = descriptor.entries.iter();
        let parts = entries.map(|entry| Part::Own(&entry.key, &entry.value));
        let key = counter_key(&options.key_prefix, Owner::Override, &limit, &request.domain, parts);
        let enforcement = match options.quota_mode {
            true => Enforcement::Quota(self.scopes.scope_of(&descriptor.entries)),
            false => Enforcement::Enforce,
        };
        let is_post_paid = is_post_paid(&limit, descriptor, active.override_usage(&request.domain));
        let count_denied = options.defaults.count_denied && limit.algorithm.kind().can_count_denied();
        let is_charge = count_denied || options.charge_after_peek && is_post_paid;
        let check = self.push(Check {
            key,
            limit,
            hits: hits(request, descriptor, &limit, is_charge),
            enforcement: options.in_force(enforcement),
        });
        Ok(PlanEntry::Counted {
            check,
            rule: None,
            limit_hits: limit.hits,
            algorithm: limit.algorithm.kind(),
            requests_per_unit: wanted.requests_per_unit,
            window: wanted.window,
            window_seconds: wanted.window.seconds(),
            enforcement,
            forgets: is_post_paid && !is_charge,
            by_default: false,
        })
    }

    /// Enforces a quota whose descriptor is the common beginning of all scopes (a backend's, beside those of several of its
    /// models): it belongs to every scope, so once it is used up, all scopes deny.
    fn enforce_common_quotas(&mut self, descriptors: &[Descriptor]) {
        for (entry, at) in self.entries.iter_mut().zip(&self.of) {
            let PlanEntry::Counted { check, enforcement, .. } = entry else {
                continue;
            };
            let own = descriptors.get(*at).map_or(&[][..], |descriptor| &descriptor.entries);
            if matches!(enforcement, Enforcement::Quota(_)) && self.scopes.several_begin_with(own) {
                *enforcement = Enforcement::Enforce;
                let check = self.transaction.checks.get_mut(*check);
                if let Some(check) = check.filter(|check| matches!(check.enforcement, Enforcement::Quota(_))) {
                    check.enforcement = Enforcement::Enforce;
                }
            }
        }
    }

    /// Whether these statuses would deny the request without the global shadow mode.
    pub(super) fn would_deny(&self, statuses: &[Status]) -> bool {
        let verdict = |(entry, status): (&PlanEntry, &Status)| match (entry, &status.limit) {
            (PlanEntry::Counted { enforcement, .. }, StatusLimit::Counted(counted)) => {
                Some((*enforcement, !counted.denied))
            }
            _ => None,
        };
        !passes(self.entries.iter().zip(statuses).filter_map(verdict))
    }

    /// Turns an acquisition into a hold, if the limit has holds. All holds of a request have one id.
    fn held(&mut self, hits: Hits, limit: &Limit, input: PlanInput<'_>) -> Hits {
        match hits {
            Hits::Acquire(hits) if limit.hold_us > 0 => {
                let new = || input.options.hold_id(input.clock.now_us());
                let id = *self.hold.get_or_insert_with(new);
                Hits::Hold { hits, id }
            }
            _ => hits,
        }
    }

    fn push(&mut self, mut check: Check) -> usize {
        join_settlements(&mut self.transaction, &mut check);
        self.transaction.checks.push(check);
        self.transaction.checks.len() - 1
    }

    /// For each check, its failure mode: what applies when the store cannot answer.
    pub(super) fn failure_modes(&self, active: &Active, default: OnStoreError) -> SmallVec<[OnStoreError; 2]> {
        let mode = |entry: &PlanEntry| match entry {
            PlanEntry::Counted { rule, .. } => Some(
                rule.and_then(|index| active.rule(index))
                    .and_then(|rule| rule.on_store_error)
                    .unwrap_or(default),
            ),
            PlanEntry::Free | PlanEntry::Unlimited { .. } => None,
        };
        self.entries.iter().filter_map(mode).collect()
    }
}

/// Joins two settlements of one hold (input and output tokens, for instance): the first settles it with the hits of both.
fn join_settlements(transaction: &mut Transaction, check: &mut Check) {
    let Hits::Settle { hits, id } = &mut check.hits else {
        return;
    };
    let earlier = transaction.checks.iter_mut().find_map(|known| match &mut known.hits {
        Hits::Settle { hits, id: of } if known.key == check.key && of == id => Some(hits),
        _ => None,
    });
    if let Some(earlier) = earlier {
        *earlier = earlier.saturating_add(std::mem::take(hits));
    }
}

fn override_limit(options: &EngineOptions, hits: u32, window: Window) -> Result<Limit, String> {
    let spec = LimitSpec::new(options.defaults.algorithm, u64::from(hits), window);
    limit::build(&spec).map_err(|error| error.to_string())
}
