//! How many hits may pass: the bounds of docs/reliability.md, "How many hits may pass in a failure".

use std::cmp::Reverse;

use sluicegate::algorithms::limit::share;
use sluicegate::model::{Algorithm, CounterKey, Limit};

use super::seen::{Sent, changes};
use super::{Admitted, Counter};
use crate::server::Server;

/// What a check of a bound looks at, beside the counter.
pub(super) struct Now<'a> {
    pub ms: u64,
    pub server: &'a Server,
    pub sent: &'a [Sent],
    /// Permits that releases of denied requests may have freed.
    pub unnoted: u64,
}

/// What fallback counters could not know: hits of calls that were under way while they decided, and that the store admitted.
fn under_way(key: &CounterKey, counter: &Counter, now: &Now<'_>, since_ms: u64) -> u64 {
    let since = counter.under_way.iter().filter(|(_, at_ms)| **at_ms >= since_ms);
    let messages = since.filter_map(|(number, _)| now.sent.get(*number));
    let changes = messages
        .flat_map(changes)
        .filter(|changed| changed.admitted && changed.key == *key);
    changes.map(|changed| changed.hits.unsigned_abs()).sum()
}

/// Whether the last admission has passed its limit. `allowance`: so many parts of other processes may not have been heard
/// of under `local`.
pub(super) fn check(
    key: &CounterKey,
    counter: &Counter,
    now: &Now<'_>,
    allowance: u64,
    replicas: usize,
) -> Result<(), String> {
    let Some(last) = counter.admitted.last() else {
        return Ok(());
    };
    if counter.allow {
        return Ok(());
    }
    let part = share(&counter.limit, u32::try_from(replicas).unwrap_or(1));
    let window_ms = counter.limit.window_us / 1000;
    // A reset is no other thing for what a window lets pass.
    let losses = |since_ms: u64| {
        let all = now.server.losses.iter().chain(&counter.resets);
        all.filter(|at| **at >= since_ms).count() as u64
    };
    let bound = |over_us: u64, losses: u64, since_ms: u64| {
        let local = if counter.local {
            allowance * most_in(&part, over_us) + counter.unheard + under_way(key, counter, now, since_ms)
        } else {
            0
        };
        most_in(&counter.limit, over_us) * (1 + losses) + local
    };
    if matches!(counter.limit.algorithm, Algorithm::Concurrency) {
        let bound = bound(0, losses(0), 0) + now.unnoted;
        return if counter.held > bound {
            Err(format!(
                "{key}: {} permits are held, {bound} at most may be",
                counter.held
            ))
        } else {
            Ok(())
        };
    }
    // Whatever was counted between two times was asked after the first and answered before the second.
    let mut before: Vec<&Admitted> = counter
        .admitted
        .iter()
        .filter(|admitted| admitted.to_us <= last.to_us)
        .collect();
    before.sort_by_key(|admitted| Reverse(admitted.from_us));
    let is_fixed = counter.limit.algorithm == Algorithm::FixedWindow;
    let grid_is_known = !counter.local && !now.server.is_set_back();
    // A span meets two windows whose edges are not known; three where the server's windows and the replica's own begin at
    // different times.
    let more = match is_fixed && !grid_is_known {
        true => 1 + u64::from(counter.local),
        false => 0,
    };
    let mut hits = 0;
    for first in before {
        let over_us = last.to_us - first.from_us;
        if over_us >= counter.limit.window_us {
            break;
        }
        if is_fixed && grid_is_known && first.from_us / counter.limit.window_us != last.to_us / counter.limit.window_us
        {
            break;
        }
        hits += first.hits;
        // A lease outlives the loss of what counted it by a slice.
        let since_ms = now.ms.saturating_sub(2 * window_ms + 2000);
        let bound = bound(over_us, losses(since_ms) + more, since_ms);
        if hits > bound {
            return Err(format!(
                "{key}: {hits} hits within {over_us} µs, {bound} at most may pass"
            ));
        }
    }
    Ok(())
}

/// The most hits that a limit lets pass in so long, which is shorter than its window.
fn most_in(limit: &Limit, over_us: u64) -> u64 {
    let refilled = || (limit.hits * over_us).div_ceil(limit.window_us);
    match limit.algorithm {
        Algorithm::TokenBucket { burst, .. } => burst + refilled(),
        Algorithm::LeakyBucket { .. } => 1 + refilled(),
        _ => limit.hits,
    }
}
