//! The vocabulary: what the other modules talk about. Standard library only (and the hash of long keys).

pub mod check;
pub mod descriptor;
pub mod hold;
pub mod key;
pub mod limit;
pub mod time;

pub use check::{Check, Enforcement, Hits, Outcome, RetryAfter, Transaction};
pub use descriptor::{Descriptor, Entry, LimitOverride, Request, Settles};
pub use hold::{HoldId, Holds};
pub use key::CounterKey;
pub use limit::{Algorithm, AlgorithmKind, Limit, Unit, Window};
pub use time::{Clock, ManualClock, MonotonicClock};
