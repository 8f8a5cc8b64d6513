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

/// One value for each thread with a single-threaded runtime, and one that all other callers share.
pub(super) struct PerThread<V> {
    /// Tells owners in one process apart.
    number: u64,
    make: Box<dyn Fn() -> V + Send + Sync>,
    shared: Arc<V>,
    /// The value of each thread that has called [`own`](Self::own); the threads only have weak references.
    own: Mutex<Vec<Arc<V>>>,
}

impl<V: Send + Sync + 'static> PerThread<V> {
    /// `shared` is the value of all other callers; `make` makes the value of a thread.
    pub fn new(shared: V, make: impl Fn() -> V + Send + Sync + 'static) -> Self {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        Self {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            make: Box::new(make),
            shared: Arc::new(shared),
            own: Mutex::default(),
        }
    }

    /// The shared value.
    pub const fn shared(&self) -> &Arc<V> {
        &self.shared
    }

    /// The value of this thread, if its runtime is a single-threaded one.
    pub fn own(&self) -> Option<Arc<V>> {
        OWN.with_borrow_mut(|values| {
            let known = values.iter().find(|(number, _)| *number == self.number);
            if let Some(value) = known.and_then(|(_, value)| value.upgrade()) {
                return value.downcast().ok();
            }
            if Handle::try_current().ok()?.runtime_flavor() != RuntimeFlavor::CurrentThread {
                return None;
            }
            // Also removes the values of owners that have been dropped.
            values.retain(|(number, value)| *number != self.number && value.strong_count() > 0);
            let value = Arc::new((self.make)());
            let weak: Weak<V> = Arc::downgrade(&value);
            values.push((self.number, weak));
            self.own.lock().push(Arc::clone(&value));
            Some(value)
        })
    }

    /// The value to use on this thread.
    pub fn get(&self) -> Arc<V> {
        self.own().unwrap_or_else(|| Arc::clone(&self.shared))
    }

    /// All values, the shared one last.
    pub fn all(&self) -> Vec<Arc<V>> {
        let own = self.own.lock();
        own.iter().chain([&self.shared]).cloned().collect()
    }
}
