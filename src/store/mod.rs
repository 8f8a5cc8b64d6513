//! Where counters live, behind one contract.

mod change;
mod contract;
pub mod correction;
pub mod error;
pub mod memory;
mod per_thread;
pub mod redis;
pub mod remote;
pub mod reset;
mod ticker;

pub use self::contract::{Outcomes, Store};
pub use self::correction::{Cause, Correction};
pub use self::error::{Refusal, StoreError};
pub use self::memory::MemoryStore;
