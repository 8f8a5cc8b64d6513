//! Real replicas over a real Redis under a steady load, while things are killed, stopped, cut, slowed and emptied.
//!
//! `cargo test --test faults` is the short form; `make chaos` (`CHAOS=full`) holds every fault longer and writes
//! `docs/reliability.md`.
#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test that cannot go on says why; the table is for people"
)]

mod cases;
mod clock;
mod crowd;
mod foreign;
mod forgotten;
mod given;
mod listeners;
mod load;
mod loris;
mod mute;
mod owed;
mod proxy;
mod quiet;
mod report;
mod scene;
mod soak;
#[path = "../support/mod.rs"]
mod support;
mod uncounted;
