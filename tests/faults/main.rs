//! Real replicas over a real Redis under a steady load, while things are killed, stopped, cut, slowed and emptied.
//!
//! `cargo test --test faults` is the short form; `make chaos` (`CHAOS=full`) holds every fault longer and writes
//! `docs/reliability.md`.

mod cases;
mod load;
mod proxy;
mod report;
mod scene;
#[path = "../support/mod.rs"]
mod support;
