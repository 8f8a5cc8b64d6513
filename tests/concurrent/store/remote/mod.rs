//! `store::remote`, without what puts its stages together, and what is tried of it.

#[path = "../../../../src/store/remote/book.rs"]
mod book;
#[path = "../../../../src/store/remote/bounds.rs"]
mod bounds;
#[path = "../../../../src/store/remote/cache.rs"]
mod cache;
#[path = "../../../../src/store/remote/carried.rs"]
mod carried;
#[path = "../../../../src/store/remote/circuit.rs"]
mod circuit;
#[path = "../../../../src/store/remote/context.rs"]
mod context;
#[path = "../../../../src/store/remote/dispatch.rs"]
mod dispatch;
#[path = "../../../../src/store/remote/fallback.rs"]
mod fallback;
#[path = "../../../../src/store/remote/hasher.rs"]
mod hasher;
#[path = "../../../../src/store/remote/job.rs"]
mod job;
#[path = "../../../../src/store/remote/lease/mod.rs"]
mod lease;
#[path = "../../../../src/store/remote/ledger.rs"]
mod ledger;
#[path = "../../../../src/store/remote/queued.rs"]
mod queued;
#[path = "../../../../src/store/remote/send.rs"]
mod send;
#[path = "../../../../src/store/remote/transport.rs"]
pub mod transport;

mod try_circuit;
mod try_dispatch;
mod try_ledger;

use std::sync::Arc;

use self::bounds::Bounds;
use crate::algorithms::limit::{LimitSpec, build};
use crate::algorithms::op::Op;
use crate::model::{AlgorithmKind, Check, CounterKey, Enforcement, Limit, Unit, Window};

/// A limit that no try reaches.
fn limit(algorithm: AlgorithmKind) -> Limit {
    build(&LimitSpec::new(algorithm, 1000, Window::of(Unit::Hour))).expect("a limit")
}

fn check(key: &str, algorithm: AlgorithmKind, hits: Op) -> Check<Op> {
    Check {
        key: CounterKey::from_raw(key),
        limit: limit(algorithm),
        hits,
        enforcement: Enforcement::Enforce,
    }
}

fn ledger() -> Arc<ledger::Ledger> {
    ledger::Ledger::new(1000, Arc::default())
}

fn bounds() -> Bounds {
    Bounds::default()
}
