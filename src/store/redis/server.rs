//! One server: a few links for everybody, and one for each single-threaded runtime that calls, so that a call of such
//! a runtime never leaves its thread.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio_util::sync::CancellationToken;

use super::batch::Batcher;
use super::events::{RedisObserver, Watch};
use super::link::Links;
use super::sentinel::Master;
use crate::config::settings::RedisSettings;
use crate::model::{Clock, Transaction};
use crate::store::{Outcomes, StoreError};

thread_local! {
    /// The batchers of this thread's runtime, by the number of their server.
    static OWN: RefCell<SmallVec<[(u64, Arc<Batcher>); 2]>> = const { RefCell::new(SmallVec::new_const()) };
}

/// See the module's docs.
pub(super) struct Server {
    /// Tells servers of one process apart.
    number: u64,
    settings: RedisSettings,
    timeout: Duration,
    master: Master,
    watch: Arc<Watch>,
    clock: Option<Arc<dyn Clock>>,
    stop: CancellationToken,
    shared: Arc<Batcher>,
    /// Those of single threads.
    own: Mutex<Vec<Weak<Batcher>>>,
}

impl Server {
    pub fn spawn(
        settings: RedisSettings,
        timeout: Duration,
        observer: RedisObserver,
        clock: Option<Arc<dyn Clock>>,
        stop: CancellationToken,
    ) -> Self {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let watch = Watch::new(&settings.to_string(), observer);
        let master = Master::follow(&settings, &stop);
        let links = Links::spawn(settings.clone(), timeout, &master, &watch, &stop);
        Self {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            settings,
            timeout,
            master,
            watch,
            shared: Batcher::new(links, timeout, clock.clone()),
            clock,
            stop,
            own: Mutex::default(),
        }
    }

    /// Connections that are up, and how many there should be.
    pub fn connections(&self) -> (usize, usize) {
        let own = self.own.lock();
        let own = own.iter().filter_map(Weak::upgrade);
        own.fold(
            (self.shared.links.up(), self.shared.links.len()),
            |(up, all), batcher| (up + batcher.links.up(), all + batcher.links.len()),
        )
    }

    /// Decides transactions that may stand in one call.
    pub async fn decide(&self, transactions: SmallVec<[Transaction; 1]>) -> Result<Vec<Outcomes>, StoreError> {
        let own = self.of_this_thread().filter(|own| own.links.up() > 0);
        own.as_ref().unwrap_or(&self.shared).decide(transactions).await
    }

    fn of_this_thread(&self) -> Option<Arc<Batcher>> {
        OWN.with_borrow_mut(|batchers| {
            let known = batchers.iter().find(|(number, _)| *number == self.number);
            if let Some((_, batcher)) = known {
                return Some(batcher.clone());
            }
            if Handle::current().runtime_flavor() != RuntimeFlavor::CurrentThread {
                return None;
            }
            // Those of stores that have been dropped go now.
            batchers.retain(|(_, batcher)| !batcher.links.stopped());
            let one = RedisSettings {
                pool_size: 1,
                ..self.settings.clone()
            };
            let links = Links::spawn(one, self.timeout, &self.master, &self.watch, &self.stop);
            let batcher = Batcher::new(links, self.timeout, self.clock.clone());
            batchers.push((self.number, batcher.clone()));
            let mut own = self.own.lock();
            own.retain(|batcher| batcher.strong_count() > 0);
            own.push(Arc::downgrade(&batcher));
            Some(batcher)
        })
    }
}
