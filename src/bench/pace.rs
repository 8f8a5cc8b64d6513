//! The schedule of an open loop: call n starts at `start + n / rate`, whether earlier calls were answered or not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::BenchError;

/// Calls become due in steps of at least this: finer than the runtime's timer, coarse enough to cost little.
const STEP: Duration = Duration::from_micros(50);

/// Hands out the moments at which calls are due. A stream that comes late gets a moment in the past, so that its
/// latency holds the wait.
#[derive(Debug)]
pub struct Pace {
    start: Instant,
    rate: u64,
    due: Semaphore,
    issued: AtomicU64,
    taken: AtomicU64,
}

impl Pace {
    /// Starts a schedule of `rate` calls per second from `start` to `end`, on a thread of its own.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(rate: u64, start: Instant, end: Instant) -> Result<Arc<Self>, BenchError> {
        let pace = Arc::new(Self {
            start,
            rate: rate.max(1),
            due: Semaphore::new(0),
            issued: AtomicU64::new(0),
            taken: AtomicU64::new(0),
        });
        let driven = Arc::clone(&pace);
        thread::Builder::new()
            .name("pace".to_owned())
            .spawn(move || driven.drive(end))
            .map_err(|e| BenchError::Runtime(e.to_string()))?;
        Ok(pace)
    }

    /// Waits until a call is due and returns the moment at which it was; `None` when the schedule is over.
    pub async fn next(&self) -> Option<Instant> {
        self.due.acquire().await.ok()?.forget();
        Some(self.moment(self.taken.fetch_add(1, Ordering::Relaxed)))
    }

    /// Calls that were due and never sent, because every stream was busy.
    #[must_use]
    pub fn unsent(&self) -> u64 {
        let taken = self.taken.load(Ordering::Relaxed);
        self.issued.load(Ordering::Relaxed).saturating_sub(taken)
    }

    fn moment(&self, call: u64) -> Instant {
        let ns = u128::from(call) * 1_000_000_000 / u128::from(self.rate);
        self.start + Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
    }

    fn drive(&self, end: Instant) {
        loop {
            let now = Instant::now();
            if now >= end {
                break;
            }
            let elapsed_ns = now.saturating_duration_since(self.start).as_nanos();
            let due = u64::try_from(elapsed_ns * u128::from(self.rate) / 1_000_000_000).unwrap_or(u64::MAX);
            let fresh = due.saturating_sub(self.issued.load(Ordering::Relaxed));
            if fresh > 0 {
                self.issued.fetch_add(fresh, Ordering::Relaxed);
                self.due.add_permits(usize::try_from(fresh).unwrap_or(usize::MAX >> 4));
            }
            let next = self.moment(due + 1).saturating_duration_since(now);
            thread::sleep(next.max(STEP));
        }
        self.due.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn calls_are_due_on_the_grid_and_late_takers_get_past_moments() {
        let start = Instant::now();
        let pace = Pace::start(1000, start, start + Duration::from_secs(60)).unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        for n in 0..10 {
            let due = pace.next().await.unwrap();
            assert_eq!(due - start, Duration::from_millis(n));
        }
        assert!(pace.unsent() >= 9, "{}", pace.unsent());
    }
}
