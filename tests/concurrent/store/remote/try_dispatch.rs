//! The dispatcher: every caller is answered, whatever the order in which callers, answers, corrections and the flusher come;
//! and the store counts what callers were told, with what is owed.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use shuttle::future::{block_on, spawn, yield_now};
use shuttle::rand::{Rng, thread_rng};
use shuttle::thread;
use smallvec::smallvec;

use super::circuit::Circuit;
use super::context::Context;
use super::dispatch::Dispatch;
use super::send::{Batch, GRACE};
use super::transport::{Answers, BreakerScope, Delivery, Transport};
use super::{bounds, check, ledger, limit};
use crate::algorithms::op::Op;
use crate::explore::explore;
use crate::model::{AlgorithmKind, CounterKey, ManualClock, Transaction};
use crate::store::{Cause, Correction, MemoryStore, StoreError};
use crate::time::{elapsed, pass, sleep};

const TIMEOUT: Duration = Duration::from_millis(15);

/// A server behind a network that does what it likes, until it is told to be calm.
struct Link {
    server: MemoryStore,
    calm: AtomicBool,
    /// Hits that the server counted for calls whose answer never came.
    unheard: AtomicU64,
    /// Hits that were to be given back by calls that never came.
    lost: AtomicU64,
}

fn acquired(calls: &[Transaction<Op>]) -> u64 {
    let hits = calls
        .iter()
        .flat_map(|call| &call.checks)
        .map(|check| match check.hits {
            Op::Acquire(hits) => hits,
            _ => 0,
        });
    hits.sum()
}

fn given_back(calls: &[Transaction<Op>]) -> u64 {
    let hits = calls
        .iter()
        .flat_map(|call| &call.checks)
        .map(|check| match check.hits {
            Op::Return { hits, .. } | Op::Refund(hits) => hits,
            _ => 0,
        });
    hits.sum()
}

impl Link {
    fn new(calm: bool) -> Self {
        let keys = NonZeroUsize::new(64).expect("not zero");
        Self {
            server: MemoryStore::repeatable(keys, Arc::new(ManualClock::new(1 << 50)), [1; 16]),
            calm: AtomicBool::new(calm),
            unheard: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        }
    }

    fn decide(&self, calls: &[Transaction<Op>]) -> Vec<Answers> {
        calls.iter().map(|call| self.server.check_ops(call)).collect()
    }

    fn used(&self, key: &str, algorithm: AlgorithmKind) -> u64 {
        self.server.used(&CounterKey::from_raw(key), &limit(algorithm))
    }
}

impl Transport for Link {
    fn scope(&self) -> BreakerScope {
        BreakerScope::Cluster
    }

    async fn send(&self, _: u16, calls: &[Transaction<Op>]) -> Delivery {
        yield_now().await;
        let broken = || Delivery::Indeterminate(StoreError::Broken("reset".into()));
        let fate = thread_rng().gen_range(0..6);
        if self.calm.load(SeqCst) || fate == 0 {
            let answers = self.decide(calls);
            yield_now().await;
            return Delivery::Answered(Ok(answers));
        }
        match fate {
            1 => return Delivery::NotSent(StoreError::Unavailable("no connection".into())),
            2 => {
                self.lost.fetch_add(given_back(calls), SeqCst);
                return broken();
            }
            _ => {}
        }
        let (answers, hits) = (self.decide(calls), acquired(calls));
        self.unheard.fetch_add(hits, SeqCst);
        match fate {
            3 => return broken(),
            // Late, in time to be followed.
            4 => sleep(TIMEOUT + GRACE / 2).await,
            // Later than that.
            _ => sleep(TIMEOUT + GRACE * 2).await,
        }
        self.unheard.fetch_sub(hits, SeqCst);
        Delivery::Answered(Ok(answers))
    }
}

fn context(calm: bool, join: bool) -> Arc<Context<Link>> {
    Arc::new(Context {
        transport: Link::new(calm),
        circuit: Circuit::new(BreakerScope::Cluster),
        ledger: ledger(),
        denials: None,
        fallback: None,
        timeout: TIMEOUT,
        join,
        bounds: bounds(),
        reached: Arc::default(),
    })
}

/// Asks for one hit of each of these keys; whether the caller was told that it has them.
async fn ask(dispatch: Arc<Dispatch<Link>>, keys: &[&str], algorithm: AlgorithmKind) -> bool {
    let transaction = Transaction {
        checks: keys.iter().map(|key| check(key, algorithm, Op::Acquire(1))).collect(),
        ..Transaction::default()
    };
    match dispatch.call(0, smallvec![transaction], TIMEOUT).await {
        Ok((answers, mut permits)) => {
            permits.disarm();
            assert!(answers.iter().flatten().all(|answer| answer.outcome.allowed));
            true
        }
        Err(_) => false,
    }
}

/// Sends what is owed.
async fn flush(context: &Context<Link>) {
    let carried = context.ledger.claim_any(8, 8, |_, _| true);
    let _ = context.send(Batch::new(0, carried)).await;
}

/// When nothing is under way any more, what is left is flushed over a calm network.
fn end(context: &Context<Link>, dispatch: &Arc<Dispatch<Link>>) {
    while Arc::strong_count(dispatch) > 1 {
        thread::yield_now();
    }
    context.transport.calm.store(true, SeqCst);
    while !context.ledger.is_empty() {
        block_on(flush(context));
    }
}

/// No time passes here: what waits for something that is lost would wait for ever.
#[test]
fn every_caller_is_answered_without_any_timeout() {
    explore(|| {
        let context = context(true, true);
        let dispatch = Arc::new(Dispatch::new(Arc::clone(&context)));
        let mut tasks = Vec::new();
        for keys in [&["a"][..], &["a"], &["a", "b"], &["b"]] {
            let dispatch = Arc::clone(&dispatch);
            tasks.push(thread::spawn(move || {
                assert!(block_on(ask(dispatch, keys, AlgorithmKind::SlidingWindow)));
            }));
        }
        {
            let context = Arc::clone(&context);
            tasks.push(thread::spawn(move || {
                let check = check("a", AlgorithmKind::SlidingWindow, Op::Acquire(1));
                context.ledger.record(Correction::unplaced(&check, 5, Cause::Fallback));
                block_on(flush(&context));
            }));
        }
        for task in tasks {
            task.join().expect("a task");
        }
        end(&context, &dispatch);
        assert_eq!(elapsed(), Duration::ZERO);
        let used = ["a", "b"].map(|key| context.transport.used(key, AlgorithmKind::SlidingWindow));
        assert_eq!(used, [3 + 5, 2]);
    });
}

#[test]
fn what_callers_were_told_is_counted_whatever_is_late_or_lost() {
    explore(|| {
        let context = context(false, thread_rng().gen_range(0..4) > 0);
        let dispatch = Arc::new(Dispatch::new(Arc::clone(&context)));
        let done = Arc::new(AtomicBool::new(false));
        let passing = {
            let done = Arc::clone(&done);
            thread::spawn(move || pass(&done))
        };
        let told = Arc::new(AtomicU64::new(0));
        let callers: Vec<_> = (0..4)
            .map(|_| {
                let (dispatch, told) = (Arc::clone(&dispatch), Arc::clone(&told));
                thread::spawn(move || {
                    if block_on(ask(dispatch, &["a"], AlgorithmKind::SlidingWindow)) {
                        told.fetch_add(1, SeqCst);
                    }
                })
            })
            .collect();
        for caller in callers {
            caller.join().expect("a caller");
        }
        end(&context, &dispatch);
        done.store(true, SeqCst);
        passing.join().expect("the clock");
        let link = &context.transport;
        let counted = link.used("a", AlgorithmKind::SlidingWindow);
        let (told, unheard, lost) = (told.load(SeqCst), link.unheard.load(SeqCst), link.lost.load(SeqCst));
        assert_eq!(
            counted,
            told + unheard + lost,
            "{told} told, {unheard} unheard, {lost} lost"
        );
    });
}

/// A caller that goes away at any step holds nothing.
#[test]
fn permits_of_callers_that_went_away_are_given_back() {
    explore(|| {
        let context = context(true, true);
        let dispatch = Arc::new(Dispatch::new(Arc::clone(&context)));
        let told = Arc::new(AtomicU64::new(0));
        let callers: Vec<_> = (0..3)
            .map(|_| {
                let (dispatch, told) = (Arc::clone(&dispatch), Arc::clone(&told));
                spawn(async move {
                    if ask(dispatch, &["a"], AlgorithmKind::Concurrency).await {
                        told.fetch_add(1, SeqCst);
                    }
                })
            })
            .collect();
        for _ in 0..thread_rng().gen_range(0..8) {
            thread::yield_now();
        }
        callers[0].abort();
        callers[1].abort();
        for caller in callers {
            let _ = block_on(caller);
        }
        end(&context, &dispatch);
        let counted = context.transport.used("a", AlgorithmKind::Concurrency);
        assert_eq!(counted, told.load(SeqCst), "permits are counted that nobody holds");
    });
}
