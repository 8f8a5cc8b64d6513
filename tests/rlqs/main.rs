//! Quotas that Envoys enforce themselves, on virtual time: the real service, engine and store, and Envoys modelled by what was
//! seen of Envoy 1.40 (docs/rlqs.md). An upstream counts what they admit.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test that cannot go on says why; figures are printed"
)]

/// As the server's: what a bucket takes depends on it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod bounds;
mod cost;
mod envoy;
mod faults;
mod hours;
mod leases;
mod properties;
mod refill;
mod shares;
mod upstream;
mod world;
