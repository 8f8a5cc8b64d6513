//! The vocabulary: what the other modules talk about. Standard library only (and the hash of long keys, and time zones).

pub mod calendar;
pub mod check;
pub mod descriptor;
pub mod hold;
pub mod key;
pub mod limit;
pub mod time;
pub mod unit;

pub use calendar::{Calendar, Zone};
pub use check::{Check, Enforcement, Hits, Outcome, RetryAfter, Transaction};
pub use descriptor::{Descriptor, Entry, LimitOverride, Request, Settles};
pub use hold::{HOLD_ENTRY, HoldId, Holds};
pub use key::CounterKey;
pub use limit::{Algorithm, AlgorithmKind, Limit, Window};
pub use time::{Clock, ManualClock, MonotonicClock};
pub use unit::Unit;
