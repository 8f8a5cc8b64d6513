//! `tokio::time`: it stands still but for [`pass`], so that what waits for a time may go on at any step, or not yet.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::{Add, Sub};
use std::pin::{Pin, pin};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use real_tokio::time as real;
use shuttle::rand::Rng;

pub use real::{Interval, MissedTickBehavior, interval};

/// Steps of others between two moments, at most.
const STEPS: u32 = 40;

/// All tasks of an execution run on one thread.
#[derive(Default)]
struct Timers {
    now: Duration,
    waiting: BTreeMap<(Duration, u64), Waker>,
    next: u64,
}

thread_local! {
    static TIMERS: RefCell<Timers> = RefCell::default();
}

static START: LazyLock<std::time::Instant> = LazyLock::new(std::time::Instant::now);

/// A new execution begins.
pub fn reset() {
    TIMERS.take();
}

/// How long the execution has lasted.
pub fn elapsed() -> Duration {
    TIMERS.with_borrow(|timers| timers.now)
}

/// Lets time go on to the next moment that something waits for, again and again, at random steps until `done`.
pub fn pass(done: &AtomicBool) {
    while !done.load(SeqCst) {
        for _ in 0..shuttle::rand::thread_rng().gen_range(0..STEPS) {
            shuttle::thread::yield_now();
        }
        let due = TIMERS.with_borrow_mut(|timers| {
            let (&key, _) = timers.waiting.first_key_value()?;
            timers.now = timers.now.max(key.0);
            timers.waiting.remove(&key)
        });
        due.into_iter().for_each(Waker::wake);
        shuttle::thread::yield_now();
    }
}

/// A moment of the execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(Duration);

impl Instant {
    pub fn now() -> Self {
        Self(elapsed())
    }

    pub fn from_std(instant: std::time::Instant) -> Self {
        Self(instant.saturating_duration_since(*START))
    }

    pub fn into_std(self) -> std::time::Instant {
        *START + self.0
    }

    pub fn elapsed(self) -> Duration {
        elapsed().saturating_sub(self.0)
    }

    pub fn saturating_duration_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0 + duration)
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, other: Self) -> Duration {
        self.saturating_duration_since(other)
    }
}

/// The time was over first.
#[derive(Debug)]
pub struct Elapsed;

/// Completes at a moment.
pub struct Sleep {
    until: Instant,
    registered: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let until = self.until;
        TIMERS.with_borrow_mut(|timers| {
            if timers.now >= until.0 {
                return Poll::Ready(());
            }
            let number = *self.registered.get_or_insert_with(|| {
                timers.next += 1;
                timers.next
            });
            timers.waiting.insert((until.0, number), context.waker().clone());
            Poll::Pending
        })
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(number) = self.registered {
            TIMERS.with_borrow_mut(|timers| timers.waiting.remove(&(self.until.0, number)));
        }
    }
}

pub fn sleep(duration: Duration) -> Sleep {
    Sleep {
        until: Instant::now() + duration,
        registered: None,
    }
}

pub async fn timeout<F: Future>(duration: Duration, future: F) -> Result<F::Output, Elapsed> {
    timeout_at(Instant::now() + duration, future).await
}

/// As tokio's, it prefers the future.
pub async fn timeout_at<F: Future>(until: Instant, future: F) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    let mut sleep = pin!(Sleep {
        until,
        registered: None
    });
    std::future::poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Ok(output)),
        Poll::Pending => sleep.as_mut().poll(context).map(|()| Err(Elapsed)),
    })
    .await
}
