//! The seam between the pipeline and a server: below it nothing is decided, above it nothing knows which server it is.

use std::future::Future;

use crate::algorithms::op::Op;
use crate::model::{CounterKey, Transaction};
use crate::store::StoreError;
use crate::store::reset::{Cursor, NamePage};

pub use crate::algorithms::transaction::Answers;

/// What became of a call.
#[derive(Debug)]
pub enum Delivery {
    /// The server answered: all transactions were carried out, or it refused the call as a whole and counted nothing.
    Answered(Result<Vec<Answers>, StoreError>),
    /// The call never reached a server: it certainly counted nothing.
    NotSent(StoreError),
    /// The call was sent and no answer came: it counted everything or nothing.
    Indeterminate(StoreError),
}

/// What a failure of one call says about other calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerScope {
    /// There is one server: while it fails, no call is of use.
    OneServer,
    /// There are several servers, each of which fails by itself: the others must still be asked.
    Cluster,
}

/// Carries calls to a shared store.
pub trait Transport: Send + Sync + 'static {
    /// The shard of a counter. Counters of one shard can be decided by one atomic call: a hash slot of a cluster, and 0
    /// for all counters where there is one server.
    fn shard(&self, _key: &CounterKey) -> u16 {
        0
    }

    /// Shards of one lane may share a call. A server that does not have all of them refuses the whole call with an error that
    /// [says so](StoreError::is_cross_slot).
    fn lane(&self, shard: u16) -> u16 {
        shard
    }

    /// What a failure says about other calls.
    fn scope(&self) -> BreakerScope {
        BreakerScope::OneServer
    }

    /// Sends transactions, to be decided in order, in one call. The counters of each are of one shard, all of them of shards of
    /// the lane of `shard`. Completes when its fate
    /// is known or cannot become known; the caller bounds the time.
    fn send(&self, shard: u16, calls: &[Transaction<Op>]) -> impl Future<Output = Delivery> + Send;

    /// Adds counters to the log of resets of this name. A transport to a store that no other process uses has none.
    fn announce(
        &self,
        _log: &CounterKey,
        _counters: &[CounterKey],
    ) -> impl Future<Output = Result<(), StoreError>> + Send {
        async { Ok(()) }
    }

    /// Up to `most` counters that were added to the log later than `since`, in order, each with its time.
    fn resets(
        &self,
        _log: &CounterKey,
        _since: u64,
        _most: usize,
    ) -> impl Future<Output = Result<Vec<(CounterKey, u64)>, StoreError>> + Send {
        async { Ok(Vec::new()) }
    }

    /// A page of the names of counters that begin with `prefix`.
    fn scan(&self, _prefix: &str, _from: Cursor) -> impl Future<Output = Result<NamePage, StoreError>> + Send {
        async { Ok(NamePage::default()) }
    }
}
