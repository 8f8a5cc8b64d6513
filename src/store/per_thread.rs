//! A value for each single-threaded runtime that uses it, and a shared one for all other callers.
//!
//! A call on a per-core runtime then neither leaves its thread nor contends for a lock.

use std::any::Any;
use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::runtime::{Handle, RuntimeFlavor};

thread_local! {
    /// The values of this thread's runtime, by the number of their owner.
    static OWN: RefCell<SmallVec<[(u64, Weak<dyn Any + Send + Sync>); 4]>> = const { RefCell::new(SmallVec::new_const()) };
}

/// See the module's docs.
pub(super) struct PerThread<V> {
    /// Tells owners in one process apart.
    number: u64,
    make: Box<dyn Fn() -> V + Send + Sync>,
    shared: Arc<V>,
    /// One for each thread that has asked: the threads themselves only refer to them.
    own: Mutex<Vec<Arc<V>>>,
}

impl<V: Send + Sync + 'static> PerThread<V> {
    /// `shared` for everybody; `make` makes the one of a thread.
    pub fn new(shared: V, make: impl Fn() -> V + Send + Sync + 'static) -> Self {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        Self {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            make: Box::new(make),
            shared: Arc::new(shared),
            own: Mutex::default(),
        }
    }

    /// The shared one.
    pub const fn shared(&self) -> &Arc<V> {
        &self.shared
    }

    /// The one of this thread, if its runtime is a single-threaded one.
    pub fn own(&self) -> Option<Arc<V>> {
        OWN.with_borrow_mut(|values| {
            let known = values.iter().find(|(number, _)| *number == self.number);
            if let Some(value) = known.and_then(|(_, value)| value.upgrade()) {
                return value.downcast().ok();
            }
            if Handle::try_current().ok()?.runtime_flavor() != RuntimeFlavor::CurrentThread {
                return None;
            }
            // Those of owners that have been dropped go now.
            values.retain(|(number, value)| *number != self.number && value.strong_count() > 0);
            let value = Arc::new((self.make)());
            let weak: Weak<V> = Arc::downgrade(&value);
            values.push((self.number, weak));
            self.own.lock().push(Arc::clone(&value));
            Some(value)
        })
    }

    /// The one to use on this thread.
    pub fn get(&self) -> Arc<V> {
        self.own().unwrap_or_else(|| Arc::clone(&self.shared))
    }

    /// All that there are.
    pub fn all(&self) -> Vec<Arc<V>> {
        let own = self.own.lock();
        own.iter().chain([&self.shared]).cloned().collect()
    }
}
