//! `store`, without Redis.

#[path = "../../../src/store/change.rs"]
mod change;
#[path = "../../../src/store/contract.rs"]
mod contract;
#[path = "../../../src/store/correction.rs"]
pub mod correction;
#[path = "../../../src/store/error.rs"]
pub mod error;
#[path = "../../../src/store/memory/mod.rs"]
pub mod memory;
pub mod remote;
#[path = "../../../src/store/reset.rs"]
pub mod reset;
#[path = "../../../src/store/ticker.rs"]
mod ticker;

pub use self::contract::{Outcomes, Store};
pub use self::correction::{Cause, Correction};
pub use self::error::StoreError;
pub use self::memory::MemoryStore;
