//! The concurrent cores (circuit, ledger, dispatch) under schedules that a seed decides.
//!
//! The very sources are compiled here once more, with other crates under the names that they import: `parking_lot` is
//! shuttle's, and `tokio` is this crate, whose channels are tokio's own with a point before and after each operation at
//! which another task may go on, and whose time only [`time::pass`] moves. std's atomics are one step each, and are seen by
//! all in one order: what weaker orders allow is not tried. See docs/simulation.md.

#![allow(dead_code, unused_imports, reason = "of the sources, what is tried is a part")]
#![allow(clippy::expect_used, reason = "a test that cannot go on says why")]

extern crate self as tokio;
extern crate shuttle_parking_lot as parking_lot;
extern crate tokio as real_tokio;

mod explore;
mod runtime;
mod store;
mod sync;
mod task;
mod time;

use sluicegate::{algorithms, model};

use self::task::spawn;
