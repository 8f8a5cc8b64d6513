//! What a descriptor's hits do to a counter.

use crate::model::{Algorithm, Descriptor, Hits, Limit, Request, Settles};
use crate::rules::Matched;

use super::active::Usage;

/// Whether these hits have happened already, as Envoy's calls on stream done tell them (tokens, bytes). The call does
/// not say so; but where descriptors ask first, those that bring a number pay afterwards.
pub(super) fn is_afterwards(limit: &Limit, descriptor: &Descriptor, usage: Option<&Usage>) -> bool {
    let is_told = limit.hold_us > 0 || descriptor.settles != Settles::Nothing;
    let can = !is_told && limit.algorithm.kind().can_count_denied();
    can && !asks(descriptor) && usage.is_some_and(Usage::is_peeked)
}

/// Whether a descriptor asks rather than pays: with 0 hits, or with none of its own.
pub(super) fn asks(descriptor: &Descriptor) -> bool {
    descriptor.hits_addend.is_none_or(|hits| hits == 0)
}

/// The same on a rule whose callers cannot carry an id: some of them (Kuadrant's wasm-shim) bring costs with the request, 1
/// where they ask.
pub(super) fn asks_for_mean(request: &Request, descriptor: &Descriptor) -> bool {
    asks(descriptor) && (descriptor.hits_addend.is_some() || request.hits_addend <= 1)
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

/// The same on a rule whose callers cannot carry an id: what asks holds the mean cost, what pays settles the oldest hold.
pub(super) fn of_mean(hits: Hits, mean: u64) -> Hits {
    match hits {
        Hits::Peek => Hits::HoldMean(mean),
        Hits::Acquire(hits) | Hits::Debit(hits) | Hits::Settle { hits, .. } => Hits::SettleOldest { hits, mean },
        Hits::Refund(0) => Hits::SettleOldest { hits: 0, mean },
        other => other,
    }
}

/// Hits that have happened, of either sign: whoever settles a hold must not get more back than it had.
fn settled(settles: Settles, limit: &Limit, hits: u64) -> Hits {
    // A permit is free again, and a delay over, whatever it cost.
    let hits = if limit.algorithm.kind().can_count_denied() {
        hits
    } else {
        0
    };
    match settles {
        Settles::Hold(id) if limit.hold_us > 0 => Hits::Settle { hits, id },
        // Nothing is counted, and unlike a peek it is never denied.
        _ if hits == 0 => Hits::Refund(0),
        _ => Hits::Debit(hits),
    }
}

/// Whether what a descriptor gives back is permits of the `concurrency` limit that stands beside this one, and none of this
/// one's hits.
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
