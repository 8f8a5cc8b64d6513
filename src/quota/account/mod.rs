//! The account of one bucket on one stream: what is leased, used, settled and returned. It says what to ask the store for
//! ([`QuotaStep`]) and takes in the answer ([`QuotaStand`]).
//!
//! A lease that is not short stays held until a report says what was used of it. While little is left, **short** leases follow
//! each other faster than reports come: each is settled in full as soon as it is over for certain, since what is counted late
//! is leased again late.

mod answer;
mod report;
mod state;
mod step;
mod words;

pub use self::state::{Account, LeaseStand};
pub use self::words::{Assignment, Ends, QuotaStand, QuotaStep, UnusedHits};
