//! Connection limiter: bounds how many connections a port holds, and chooses which one to close at the bound.
//!
//! A full port still serves clients that send requests: a new connection evicts the one that has been idle for longest
//! (no request under way). Only when every connection is active is the new one closed at once, so that its client
//! gets an error instead of waiting for a server that does not read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::telemetry::PortMetrics;

/// Shortest time between two log lines about the bound of one port.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// How long a port that stops still waits for the preface of a connection that has sent nothing yet.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// Bounds the connections of one port.
#[derive(Debug)]
pub struct ConnectionLimiter {
    port: &'static str,
    max: usize,
    open: Mutex<OpenConnections>,
    /// Notified when an evicted connection has closed.
    eviction_done: Notify,
    metrics: Option<PortMetrics>,
}

/// A connection has been evicted and has not closed yet.
#[derive(Debug, PartialEq)]
struct EvictionPending;

#[derive(Debug, Default)]
struct OpenConnections {
    /// By number, which is the order in which they were accepted.
    by_number: BTreeMap<u64, Arc<ConnectionState>>,
    next: u64,
    /// The evicted connection, until it has closed.
    evicting: Option<u64>,
    /// When the port was logged as full, and how many connections were closed since.
    full: Option<(Instant, u64)>,
}

#[derive(Debug, Default)]
struct ConnectionState {
    /// Requests (or HTTP/2 connections past their preface) that count as activity now.
    active: AtomicUsize,
    ever_active: AtomicBool,
    evict: CancellationToken,
}

/// The right to hold one connection; dropping it returns it to the limiter.
#[derive(Debug)]
pub struct Permit {
    limiter: Arc<ConnectionLimiter>,
    number: u64,
    state: Arc<ConnectionState>,
}

/// Records whether a connection is active; an idle one can be evicted.
#[derive(Debug, Clone)]
pub struct ConnectionActivity(Arc<ConnectionState>);

/// An activity of a connection that ends when this is dropped.
#[derive(Debug)]
pub struct ActiveGuard(ConnectionActivity);

impl ConnectionLimiter {
    /// Bounds the port of this name to `max` connections (at least one).
    #[must_use]
    pub fn new(port: &'static str, max: usize, metrics: Option<PortMetrics>) -> Arc<Self> {
        Arc::new(Self {
            port,
            max: max.max(1),
            open: Mutex::default(),
            eviction_done: Notify::new(),
            metrics,
        })
    }

    /// A permit for a connection that was just accepted; `None` when every permit is held by an active connection, and
    /// the new one is to be closed.
    pub async fn acquire(self: &Arc<Self>) -> Option<Permit> {
        loop {
            match self.try_acquire() {
                Ok(permit) => return permit,
                // The evicted connection's file descriptor must be free before another one is used.
                Err(EvictionPending) => self.eviction_done.notified().await,
            }
        }
    }

    fn try_acquire(self: &Arc<Self>) -> Result<Option<Permit>, EvictionPending> {
        let mut open = self.open.lock();
        if open.by_number.len() >= self.max {
            return self.evict_idle(&mut open);
        }
        let (number, state) = (open.next, Arc::<ConnectionState>::default());
        open.next += 1;
        open.by_number.insert(number, Arc::clone(&state));
        self.record_open(&mut open);
        drop(open);
        Ok(Some(Permit {
            limiter: Arc::clone(self),
            number,
            state,
        }))
    }

    /// Evicts the oldest idle connection; `None` when every connection is active.
    fn evict_idle(&self, open: &mut OpenConnections) -> Result<Option<Permit>, EvictionPending> {
        if open.evicting.is_some() {
            return Err(EvictionPending);
        }
        let idle = |(_, state): &(&u64, &Arc<ConnectionState>)| state.active.load(Ordering::Relaxed) == 0;
        open.evicting = open.by_number.iter().find(idle).map(|(number, state)| {
            state.evict.cancel();
            *number
        });
        let evicts = open.evicting.is_some();
        if let Some(metrics) = &self.metrics {
            let counter = if evicts { &metrics.evicted } else { &metrics.refused };
            counter.inc();
        }
        match &mut open.full {
            Some((_, closed)) => *closed += 1,
            None => {
                open.full = Some((Instant::now(), 1));
                tracing::warn!(
                    port = self.port,
                    max_connections = self.max,
                    "connection limit reached: each new connection closes the oldest idle one, or is refused if none is \
                     idle (--max-connections sets the limit of the gRPC port)"
                );
            }
        }
        if evicts { Err(EvictionPending) } else { Ok(None) }
    }

    /// Sets the gauge. Logs the end of a full phase once a tenth of the permits is free and [`LOG_INTERVAL`] has passed.
    fn record_open(&self, open: &mut OpenConnections) {
        let count = open.by_number.len();
        if let Some(metrics) = &self.metrics {
            metrics.open.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        let is_over = |full: &mut (Instant, u64)| {
            count <= self.max - self.max.div_ceil(10) && open.evicting.is_none() && full.0.elapsed() > LOG_INTERVAL
        };
        if let Some((_, closed)) = open.full.take_if(is_over) {
            tracing::info!(port = self.port, closed, "connections are below the limit again");
        }
    }
}

impl Permit {
    /// Completes when the limiter wants this connection closed for a new one.
    pub async fn evicted(&self) {
        self.state.evict.cancelled().await;
    }

    /// Completes when the client has sent no preface (HTTP/2) or request head (HTTP/1) within `timeout`; on a port that
    /// stops, within [`STOP_GRACE`]. Never completes once the connection was active.
    pub async fn preface_timeout(&self, timeout: Duration, stop: &CancellationToken) {
        let stopped = async {
            stop.cancelled().await;
            sleep(STOP_GRACE).await;
        };
        tokio::select! {
            () = sleep(timeout) => {}
            () = stopped => {}
        }
        if self.state.ever_active.load(Ordering::Relaxed) {
            std::future::pending().await
        }
    }

    /// Counts a connection that is closed because its client exceeded a timeout.
    pub fn count_slow(&self) {
        if let Some(metrics) = &self.limiter.metrics {
            metrics.slow.inc();
        }
    }

    /// Counts a connection that is closed because its TLS handshake failed.
    pub fn count_handshake(&self) {
        if let Some(metrics) = &self.limiter.metrics {
            metrics.handshake.inc();
        }
    }

    /// The port's metrics of connections.
    #[must_use]
    pub fn metrics(&self) -> Option<&PortMetrics> {
        self.limiter.metrics.as_ref()
    }

    /// The handle that records this connection's activity; it starts idle.
    #[must_use]
    pub fn activity(&self) -> ConnectionActivity {
        ConnectionActivity(Arc::clone(&self.state))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = self.limiter.open.lock();
        open.by_number.remove(&self.number);
        self.limiter.record_open(&mut open);
        if open.evicting.take_if(|number| *number == self.number).is_some() {
            self.limiter.eviction_done.notify_one();
        }
    }
}

impl ConnectionActivity {
    /// Begins one activity, until [`ConnectionActivity::end`] or the connection closes.
    pub fn begin(&self) {
        self.0.active.fetch_add(1, Ordering::Relaxed);
        self.0.ever_active.store(true, Ordering::Relaxed);
    }

    /// Ends what the matching [`ConnectionActivity::begin`] began.
    pub fn end(&self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }

    /// Begins one activity that ends when the guard is dropped.
    #[must_use]
    pub fn guard(&self) -> ActiveGuard {
        self.begin();
        ActiveGuard(self.clone())
    }
}

impl Drop for ActiveGuard {
    fn drop(&mut self) {
        self.0.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_evicted(permit: &Permit) -> bool {
        permit.state.evict.is_cancelled()
    }

    fn acquired(limiter: &Arc<ConnectionLimiter>) -> Permit {
        limiter.try_acquire().unwrap().unwrap()
    }

    #[test]
    fn the_oldest_idle_connection_is_evicted_and_active_ones_stay() {
        let limiter = ConnectionLimiter::new("test", 3, None);
        let [first, second, third] = std::array::from_fn(|_| acquired(&limiter));
        first.activity().begin();
        // One eviction at a time: nothing is accepted and nothing else evicted before it is done.
        for _ in 0..2 {
            assert_eq!(limiter.try_acquire().unwrap_err(), EvictionPending);
            assert_eq!([&first, &second, &third].map(is_evicted), [false, true, false]);
        }
        drop(second);
        let fourth = acquired(&limiter);
        third.activity().begin();
        assert_eq!(limiter.try_acquire().unwrap_err(), EvictionPending);
        drop(fourth);
        let fifth = acquired(&limiter);
        let active = fifth.activity().guard();
        assert!(limiter.try_acquire().unwrap().is_none(), "all are active");
        drop(active);
        assert_eq!(limiter.try_acquire().unwrap_err(), EvictionPending);
        assert!(is_evicted(&fifth) && !is_evicted(&third));
    }

    #[tokio::test]
    async fn a_waiting_connection_gets_its_permit_when_the_evicted_one_has_closed() {
        let limiter = ConnectionLimiter::new("test", 1, None);
        let first = limiter.acquire().await.unwrap();
        let mut second = std::pin::pin!(limiter.acquire());
        assert!(futures::poll!(second.as_mut()).is_pending());
        assert!(is_evicted(&first));
        drop(first);
        second.await.unwrap();
        let closed = limiter.open.lock().full.map(|(_, closed)| closed);
        assert_eq!(closed, Some(1), "the full phase is logged once");
    }
}
