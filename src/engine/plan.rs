//! Which counters a request asks for.

use smallvec::SmallVec;

use crate::algorithms::held::plain;
use crate::algorithms::limit::{self, LimitSpec};
use crate::model::check::passes;
use crate::model::key::{Owner, Part, counter_key};
use crate::model::{Check, Clock, Descriptor, Enforcement, Hits, HoldId, Limit, Request, Settles, Transaction, Window};
use crate::rules::{Candidate, Matched, OnStoreError, Rule};

use super::active::Active;
use super::candidate::Trial;
use super::hits::{asks_for_mean, gives_back_permits_only, hits, is_afterwards, of_mean};
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

/// A request with its rules found.
pub(super) struct Plan {
    pub transaction: Transaction,
    /// One for each limit of each descriptor, in order; at least one a descriptor.
    pub entries: SmallVec<[PlanEntry; 2]>,
    /// For each entry, its descriptor.
    pub of: SmallVec<[usize; 2]>,
    /// The candidates of the rules that were found; `None` if they have none.
    pub trial: Option<Box<Trial>>,
    /// The name of all that the request holds, if it asks for that.
    pub hold: Option<HoldId>,
    scopes: QuotaScopes,
}

/// What a descriptor asks for.
#[derive(Debug, Clone, Copy)]
pub(super) enum PlanEntry {
    /// No rule, or one that another rule of the request replaces.
    Free,
    /// A rule that says `unlimited`.
    Unlimited { rule: usize },
    /// Counted by the transaction's check of that number.
    Counted {
        check: usize,
        rule: Option<usize>,
        limit_hits: u64,
        requests_per_unit: u32,
        window: Window,
        window_seconds: u64,
        /// Without the global shadow mode.
        enforcement: Enforcement,
        /// Its hits have happened, and are forgotten if they are denied.
        forgets: bool,
        /// The rule's source has no plan for the value.
        by_default: bool,
    },
}

/// What a plan is made of.
#[derive(Clone, Copy)]
pub(super) struct Asking<'r> {
    pub options: &'r EngineOptions,
    pub active: &'r Active,
    pub request: &'r Request,
    pub clock: &'r dyn Clock,
}

pub(super) fn plan(asking: Asking<'_>) -> Result<Plan, RequestError> {
    let Asking { active, request, .. } = asking;
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
        trial: None,
        hold: None,
        scopes: QuotaScopes::default(),
    };
    let Some(domain) = active.rules.domains.get(request.domain.as_str()) else {
        (0..request.descriptors.len()).for_each(|index| plan.add(index, PlanEntry::Free));
        return Ok(plan);
    };
    let is_ours = |descriptor: &&Descriptor| descriptor.limit.is_none();
    let find = |descriptor| {
        Some(descriptor)
            .filter(is_ours)
            .and_then(|ours| domain.find(&ours.entries))
    };
    let matches: SmallVec<[Option<Matched<'_>>; 2]> = request.descriptors.iter().map(find).collect();
    let replaced = replaced(&matches);
    for (index, (descriptor, matched)) in request.descriptors.iter().zip(&matches).enumerate() {
        if descriptor.limit.is_some() {
            let entry = plan.add_override(asking, index)?;
            plan.add(index, entry);
            continue;
        }
        let before = plan.entries.len();
        for rule in matched.iter().flat_map(|matched| matched.rules) {
            if let (Some(matched), false) = (matched, replaced.contains(&&*rule.name)) {
                let entry = plan.add_rule(asking, descriptor, matched, rule);
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

/// The names of the rules that another matched rule of the request replaces: they are dropped, their counters untouched.
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
        asking: Asking<'_>,
        descriptor: &Descriptor,
        matched: &Matched<'_>,
        rule: &Rule,
    ) -> PlanEntry {
        let Asking {
            options,
            active,
            request,
            ..
        } = asking;
        if let Some(candidate) = &rule.candidate {
            self.add_candidate(asking, descriptor, matched, (rule.index, candidate));
        }
        let (amount, by_default) = rule.amount_for(&descriptor.entries, || asking.clock.now_us());
        let Some(limit) = amount.limit else {
            return PlanEntry::Unlimited { rule: rule.index };
        };
        let key = rule_key(options, rule.owner(), &limit, request, descriptor, matched);
        let enforcement = match () {
            () if rule.shadow_mode || rule.marks => Enforcement::Shadow,
            () if options.quota_mode || rule.quota_mode => {
                Enforcement::Quota(self.scopes.scope_of(&descriptor.entries))
            }
            () => Enforcement::Enforce,
        };
        self.transaction.exact |= rule.lease == Some(false) || limit.hold_us > 0;
        let settles = descriptor.settles != Settles::Nothing;
        // Its holds are quotas of Envoys; a request counts its hits.
        let asked = if rule.rlqs { plain(&limit) } else { limit };
        let is_afterwards = is_afterwards(&asked, descriptor, active.usage(rule.index));
        let is_charge = amount.count_denied || options.charge_after_peek && is_afterwards;
        let hits = hits(request, descriptor, &asked, is_charge);
        let hits = match (amount.hold_first, active.usage(rule.index)) {
            (Some(first), Some(usage)) => of_mean(
                if asks_for_mean(request, descriptor) && !settles {
                    Hits::Peek
                } else {
                    hits
                },
                usage.mean_cost(first),
            ),
            _ => self.held(hits, &asked, asking.clock),
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
            requests_per_unit: amount.requests_per_unit,
            window: amount.window,
            window_seconds: amount.window.seconds_at(|| asking.clock.now_us()),
            enforcement,
            forgets: is_afterwards && !is_charge,
            by_default,
        }
    }

    fn add_candidate(
        &mut self,
        asking: Asking<'_>,
        descriptor: &Descriptor,
        matched: &Matched<'_>,
        (rule, candidate): (usize, &Candidate),
    ) {
        let Asking {
            options,
            active,
            request,
            ..
        } = asking;
        let limit = candidate.limit;
        let is_charge = candidate.count_denied
            || options.charge_after_peek && is_afterwards(&limit, descriptor, active.usage(rule));
        let hits = self.held(hits(request, descriptor, &limit, is_charge), &limit, asking.clock);
        let trial = self.trial.get_or_insert_default();
        let mut check = Check {
            key: rule_key(options, Owner::Candidate, &limit, request, descriptor, matched),
            limit,
            hits,
            enforcement: Enforcement::Shadow,
        };
        join_settlements(&mut trial.transaction, &mut check);
        trial.transaction.checks.push(check);
        trial.of.push((self.entries.len(), rule));
    }

    fn add_override(&mut self, asking: Asking<'_>, index: usize) -> Result<PlanEntry, RequestError> {
        let Asking {
            options,
            active,
            request,
            ..
        } = asking;
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
        let is_afterwards = is_afterwards(&limit, descriptor, active.override_usage(&request.domain));
        let count_denied = options.defaults.count_denied && limit.algorithm.kind().can_count_denied();
        let is_charge = count_denied || options.charge_after_peek && is_afterwards;
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
            requests_per_unit: wanted.requests_per_unit,
            window: wanted.window,
            window_seconds: wanted.window.seconds(),
            enforcement,
            forgets: is_afterwards && !is_charge,
            by_default: false,
        })
    }

    /// A quota of what all scopes begin with (a backend's, beside those of several of its models) is part of each of them:
    /// once it is used up all are, so it denies by itself.
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

    /// Whether these verdicts deny the request, were there no global shadow mode.
    pub(super) fn would_deny(&self, statuses: &[Status]) -> bool {
        let verdict = |(entry, status): (&PlanEntry, &Status)| match (entry, &status.limit) {
            (PlanEntry::Counted { enforcement, .. }, StatusLimit::Counted(counted)) => {
                Some((*enforcement, !counted.denied))
            }
            _ => None,
        };
        !passes(self.entries.iter().zip(statuses).filter_map(verdict))
    }

    /// Where hits are held, the ones that are asked for become a hold; all holds of a request have one name.
    fn held(&mut self, hits: Hits, limit: &Limit, clock: &dyn Clock) -> Hits {
        match hits {
            Hits::Acquire(hits) if limit.hold_us > 0 => {
                let new = || HoldId::new(clock.now_us(), rand::random());
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

    /// For each check, what happens when the store cannot answer.
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

/// A hold that two descriptors settle (input and output tokens, say) is settled by the first, for both.
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
