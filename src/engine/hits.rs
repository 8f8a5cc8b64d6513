//! What a descriptor's hits do to a counter.

use crate::model::{Algorithm, Descriptor, Hits, Limit, Request, Settles};
use crate::rules::Matched;

use super::active::Usage;

/// Whether a descriptor's hits are a post-paid cost, as in Envoy's calls on stream done (tokens, bytes). The call itself does
/// not show that; but if requests have peeked at the limit before, hits that a descriptor brings come afterwards.
pub(super) fn is_post_paid(limit: &Limit, descriptor: &Descriptor, usage: Option<&Usage>) -> bool {
    let is_told = limit.hold_us > 0 || descriptor.settles != Settles::Nothing;
    let can = !is_told && limit.algorithm.kind().can_count_denied();
    can && !brings_no_cost(descriptor) && usage.is_some_and(Usage::is_peeked)
}

/// Whether a descriptor only checks the limit: with 0 hits, or without hits of its own.
pub(super) fn brings_no_cost(descriptor: &Descriptor) -> bool {
    descriptor.hits_addend.is_none_or(|hits| hits == 0)
}

/// Whether a descriptor holds the mean cost, on a rule whose callers cannot carry an id. Some of these callers (Kuadrant's
/// wasm-shim) put hits into the request: 1 before it is served, and its cost afterwards.
pub(super) fn holds_mean(request: &Request, descriptor: &Descriptor) -> bool {
    brings_no_cost(descriptor) && (descriptor.hits_addend.is_some() || request.hits_addend <= 1)
}

/// The descriptor's hits when it brings its own (0 = a peek), else the request's (0 means 1).
pub(super) fn hits(request: &Request, descriptor: &Descriptor, limit: &Limit, is_charge: bool) -> Hits {
    let addend = descriptor
        .hits_addend
        .unwrap_or_else(|| u64::from(request.hits_addend.max(1)));
    if descriptor.settles != Settles::Nothing {
        return settled(descriptor.settles, limit, addend);
    }
    match (addend, descriptor.is_negative_hits) {
        (0, _) => Hits::Peek,
        (hits, true) => Hits::Refund(hits),
        (hits, false) if is_charge && limit.hold_us == 0 => Hits::Debit(hits),
        (hits, false) => Hits::Acquire(hits),
    }
}

/// A descriptor's hits on a rule whose callers cannot carry an id: a peek holds the mean cost, and a cost settles the oldest
/// hold.
pub(super) fn of_mean(hits: Hits, mean: u64) -> Hits {
    match hits {
        Hits::Peek => Hits::HoldMean(mean),
        Hits::Acquire(hits) | Hits::Debit(hits) | Hits::Settle { hits, .. } => Hits::SettleOldest { hits, mean },
        Hits::Refund(0) => Hits::SettleOldest { hits: 0, mean },
        other => other,
    }
}

/// The hits of a descriptor that settles a hold. Negative hits count as positive ones, since a settlement must not give back
/// more than the hold kept.
fn settled(settles: Settles, limit: &Limit, hits: u64) -> Hits {
    // For concurrency and leaky_bucket a cost counts nothing: the permit is free again, and the delay over.
    let hits = if limit.algorithm.kind().can_count_denied() {
        hits
    } else {
        0
    };
    match settles {
        Settles::Hold(id) if limit.hold_us > 0 => Hits::Settle { hits, id },
        // Counts nothing, and unlike a peek is never denied.
        _ if hits == 0 => Hits::Refund(0),
        _ => Hits::Debit(hits),
    }
}

/// Whether a descriptor's refund applies only to the `concurrency` limit that its rule has beside this limit, and not to this
/// limit.
pub(super) fn gives_back_permits_only(matched: &Matched<'_>, limit: &Limit) -> bool {
    let is_permits = |limit: &Limit| limit.algorithm == Algorithm::Concurrency;
    let beside = || {
        matched
            .rules
            .iter()
            .any(|rule| rule.limit.as_ref().is_some_and(is_permits))
    };
    matched.rules.len() > 1 && !is_permits(limit) && beside()
}
