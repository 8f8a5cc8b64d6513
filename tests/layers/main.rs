//! The layers between a request and Redis, with several replicas over one store, delays, losses and clocks that
//! disagree: no limit is ever passed, nothing stays reserved, and little is left unused.

#![allow(clippy::expect_used, reason = "a test that cannot go on says why")]

mod coalesce;
mod deny_cache;
mod dispatch;
mod fallback;
mod lease;
mod reset;
mod search;
mod sim;
