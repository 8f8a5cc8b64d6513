//! Places for connections: a bound on how many a port has, and who leaves when all are taken.
//!
//! A port that is full stays open to those who ask something: the connection that has waited longest without having
//! been asked anything is closed for a new one. Only where every connection is in use is a new one closed at once, so
//! that its caller hears of it instead of waiting for a server that does not read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::telemetry::PortMetrics;

/// A port that fills and empties all the time is in the log this often at most.
const QUIET: Duration = Duration::from_secs(1);

/// When a port stops, a connection that has said nothing yet may still begin for so long.
const LAST_WORD: Duration = Duration::from_secs(1);

/// A use that ends by drop.
#[derive(Debug)]
pub struct InUse(Use);

/// The places of one port.
#[derive(Debug)]
pub struct Places {
    port: &'static str,
    max: usize,
    taken: Mutex<Taken>,
    /// One that was told to leave has left.
    left: Notify,
    metrics: Option<PortMetrics>,
}

/// One that was told to leave has not left yet.
#[derive(Debug, PartialEq)]
struct Leaving;

#[derive(Debug, Default)]
struct Taken {
    /// In the order in which they came.
    connections: BTreeMap<u64, Arc<State>>,
    next: u64,
    /// Who was told to leave, until it has.
    leaving: Option<u64>,
    /// Since when the log knows that the port is full, and how many were closed since.
    full: Option<(Instant, u64)>,
}

#[derive(Debug, Default)]
struct State {
    /// How many things it is used for now.
    uses: AtomicUsize,
    ever_used: AtomicBool,
    leave: CancellationToken,
}

/// A connection's place; given back by drop.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    number: u64,
    state: Arc<State>,
}

/// How a connection tells its place that it is in use.
#[derive(Debug, Clone)]
pub struct Use(Arc<State>);

impl Places {
    /// Places for at most `max` connections (at least one) of the port with this name.
    #[must_use]
    pub fn new(port: &'static str, max: usize, metrics: Option<PortMetrics>) -> Arc<Self> {
        Arc::new(Self {
            port,
            max: max.max(1),
            taken: Mutex::default(),
            left: Notify::new(),
            metrics,
        })
    }

    /// A place for a connection that was just accepted; `None` when all are taken by connections in use: close it.
    pub async fn take(self: &Arc<Self>) -> Option<Place> {
        loop {
            match self.try_take() {
                Ok(place) => return place,
                // Its file descriptor must be free before another one is used.
                Err(Leaving) => self.left.notified().await,
            }
        }
    }

    fn try_take(self: &Arc<Self>) -> Result<Option<Place>, Leaving> {
        let mut taken = self.taken.lock();
        if taken.connections.len() >= self.max {
            return self.make_room(&mut taken);
        }
        let (number, state) = (taken.next, Arc::<State>::default());
        taken.next += 1;
        taken.connections.insert(number, Arc::clone(&state));
        self.tell(&mut taken);
        drop(taken);
        Ok(Some(Place {
            places: Arc::clone(self),
            number,
            state,
        }))
    }

    /// Tells the one that has been here longest unused to leave; no place when there is none.
    fn make_room(&self, taken: &mut Taken) -> Result<Option<Place>, Leaving> {
        if taken.leaving.is_some() {
            return Err(Leaving);
        }
        let unused = |(_, state): &(&u64, &Arc<State>)| state.uses.load(Ordering::Relaxed) == 0;
        let longest = taken.connections.iter().find(unused);
        taken.leaving = longest.map(|(number, state)| {
            state.leave.cancel();
            *number
        });
        if let Some(metrics) = &self.metrics {
            let leaves = taken.leaving.is_some();
            let counter = if leaves { &metrics.evicted } else { &metrics.refused };
            counter.inc();
        }
        match &mut taken.full {
            Some((_, closed)) => *closed += 1,
            None => {
                taken.full = Some((Instant::now(), 1));
                tracing::warn!(
                    port = self.port,
                    connections = self.max,
                    "all places for connections are taken: each new one closes the one that is unused for longest, or \
                     is closed itself (--max-connections is the bound of the gRPC port)"
                );
            }
        }
        taken.leaving.map_or(Ok(None), |_| Err(Leaving))
    }

    /// The gauge; and, once a tenth of the places is free again and the log has been quiet for a while, the end of what
    /// it knows.
    fn tell(&self, taken: &mut Taken) {
        let open = taken.connections.len();
        if let Some(metrics) = &self.metrics {
            metrics.open.set(i64::try_from(open).unwrap_or(i64::MAX));
        }
        let over = |full: &mut (Instant, u64)| {
            open <= self.max - self.max.div_ceil(10) && taken.leaving.is_none() && full.0.elapsed() > QUIET
        };
        if let Some((_, closed)) = taken.full.take_if(over) {
            tracing::info!(port = self.port, closed, "there are places for connections again");
        }
    }
}

impl Place {
    /// Completes when this connection shall leave.
    pub async fn leave(&self) {
        self.state.leave.cancelled().await;
    }

    /// Completes when its peer has not asked or greeted for so long that it is left; of a port that stops, soon.
    pub async fn silent(&self, patience: Duration, stop: &CancellationToken) {
        let stopped = async {
            stop.cancelled().await;
            sleep(LAST_WORD).await;
        };
        tokio::select! {
            () = sleep(patience) => {}
            () = stopped => {}
        }
        if self.usage().ever() {
            std::future::pending().await
        }
    }

    /// Counts that its peer took longer than it may.
    pub fn slow(&self) {
        if let Some(metrics) = &self.places.metrics {
            metrics.slow.inc();
        }
    }

    /// How its connection says that it is in use; until then it is not.
    #[must_use]
    pub fn usage(&self) -> Use {
        Use(Arc::clone(&self.state))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock();
        taken.connections.remove(&self.number);
        self.places.tell(&mut taken);
        if taken.leaving.take_if(|number| *number == self.number).is_some() {
            self.places.left.notify_one();
        }
    }
}

impl Use {
    /// From now on, until [`Use::end`] or the end of the connection.
    pub fn begin(&self) {
        self.0.uses.fetch_add(1, Ordering::Relaxed);
        self.0.ever_used.store(true, Ordering::Relaxed);
    }

    /// No longer, for what [`Use::begin`] was called last.
    pub fn end(&self) {
        self.0.uses.fetch_sub(1, Ordering::Relaxed);
    }

    /// From now on, until the guard is dropped.
    #[must_use]
    pub fn guard(&self) -> InUse {
        self.begin();
        InUse(self.clone())
    }

    /// Whether it ever was in use.
    #[must_use]
    pub fn ever(&self) -> bool {
        self.0.ever_used.load(Ordering::Relaxed)
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told_to_leave(place: &Place) -> bool {
        place.state.leave.is_cancelled()
    }

    fn place(places: &Arc<Places>) -> Place {
        places.try_take().unwrap().unwrap()
    }

    #[test]
    fn the_longest_unused_leaves_first_and_those_in_use_stay() {
        let places = Places::new("test", 3, None);
        let [first, second, third] = std::array::from_fn(|_| place(&places));
        first.usage().begin();
        // Nobody comes in before the one that was told to leave has left, and nobody else is told.
        for _ in 0..2 {
            assert_eq!(places.try_take().unwrap_err(), Leaving);
            assert_eq!([&first, &second, &third].map(told_to_leave), [false, true, false]);
        }
        drop(second);
        let fourth = place(&places);
        third.usage().begin();
        assert_eq!(places.try_take().unwrap_err(), Leaving);
        drop(fourth);
        let fifth = place(&places);
        let in_use = fifth.usage().guard();
        assert!(places.try_take().unwrap().is_none(), "all are in use");
        drop(in_use);
        assert_eq!(places.try_take().unwrap_err(), Leaving);
        assert!(told_to_leave(&fifth) && !told_to_leave(&third));
    }

    #[tokio::test]
    async fn who_waits_for_a_place_gets_it_when_the_other_has_left() {
        let places = Places::new("test", 1, None);
        let first = places.take().await.unwrap();
        let mut second = std::pin::pin!(places.take());
        assert!(futures::poll!(second.as_mut()).is_pending());
        assert!(told_to_leave(&first));
        drop(first);
        second.await.unwrap();
        let closed = places.taken.lock().full.map(|(_, closed)| closed);
        assert_eq!(closed, Some(1), "the log knows");
    }
}
