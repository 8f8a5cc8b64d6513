//! Concurrency: at most L requests in flight. A request takes a slot; when its stream is done, it gives the slot back
//! (in Envoy: `apply_on_stream_done` with `is_negative_hits`). The limit's window is the `ttl`: a slot that is not
//! given back frees itself.
//!
//! The arithmetic is sliding_window's, with W = ttl and 32 slices: a taken slot counts for at least `ttl` and at most
//! `ttl × (1 + 1/32)`, unless it is given back before.
//!
//! # Which slot a release frees
//! A release says that *some* slot is free again, not which, so the counter must choose:
//!
//! - *Newest first* leaves the older entry standing for whichever request is still there, and that entry expires too
//!   early. Under traffic that never lets the count fall to zero, the bottom of the stack is forgotten once each ttl
//!   while as many requests are in flight: a client that simply stays busy gains L slots each ttl.
//! - *Oldest first* keeps a slot whose release was lost in the count for as long as later requests come and go, since
//!   their releases free it and leave a younger entry in its place.
//!
//! Nothing in between can be both prompt and safe, for the two stories look alike: take, take, release, take,
//! release, … is one lost release followed by short requests one at a time, and just as well an unbroken chain of
//! longer ones that overlap. Sluicegate's limits are never passed, so it is **oldest first**, which is the best of all
//! safe rules: each release is matched to the oldest slot that could have been its own, so what still counts is
//! exactly the largest number of requests that can be in flight, given everything the counter has seen.
//!
//! # What is guaranteed
//! - If no request is in flight for longer than `ttl`, there are **never more than L in flight**, whatever releases
//!   are lost, late or twice as old as their neighbours. (A release that comes for a request longer than `ttl`, or one
//!   that comes twice, can free another's slot.)
//! - Lost slots are free again once there is a time of ttl (and a slice) in which fewer releases come than slots were
//!   counted when it began. So: at the latest a ttl after the traffic of that key pauses; and if *all* slots are lost
//!   (nothing is admitted, so nothing is released), a ttl after the last was taken. The limit is never stuck for
//!   longer than that. Until then, a key that is always busy has as many slots less as releases were lost.
//!
//! `retry_after` of a denial is the time until enough slots free themselves; a release can make it sooner, so the
//! denial cache must not answer from it (`store/remote/cache.rs`).
//!
//! # With Envoy
//! The guarantee holds for callers that release only what they took, once, and Envoy (1.40) makes its call on stream
//! done for requests that were denied, too: a fixed `hits_addend: { number: 1, is_negative_hits: true }` would give
//! back slots that denied requests never had, and more than L get through. So an answer's dynamic metadata says what was
//! taken (`service/metadata.rs`), and the release reads it:
//! `format: "%DYNAMIC_METADATA(envoy.filters.http.ratelimit:sluicegate:slots)%"`. Where nothing was taken there is
//! nothing to read, and Envoy makes no call: after a denial, and when its own failure mode let a request pass without
//! an answer. A request header would do as well, but a client can send one, and the upstream sees it. Where a fixed
//! number is set all the same, the engine ignores as many of an Envoy's releases as it was denied (`engine/release_filter.rs`).
//!
//! A caller that disconnects before it has the answer makes no call either; the engine then gives its slots back
//! (`engine/permits.rs`). Only the ttl frees slots of an Envoy that crashed or could not reach the service, and those of a call
//! to the store that was counted and whose answer never came.
//!
//! Choose `ttl` as the longest time that a request may take (the route's timeout), not longer.

use super::sliding_window;
use crate::model::Limit;

/// Slices of a ttl.
pub const SLICES: u32 = 32;

/// A limit as this algorithm counts it.
#[must_use]
pub const fn params(limit: &Limit) -> sliding_window::Params {
    sliding_window::Params::new(limit, SLICES)
}
