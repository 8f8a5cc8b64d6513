//! A simulated process: the real engine and pipeline in a runtime of its own, whose time only the world moves.

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use parking_lot::Mutex;
use sluicegate::algorithms::limit::{LimitSpec, build};
use sluicegate::engine::{Decision, Engine, EngineOptions, RequestError};
use sluicegate::model::hold::HoldBits;
use sluicegate::model::key::{Owner, Part, counter_key};
use sluicegate::model::{
    AlgorithmKind, Check, Clock, CounterKey, Enforcement, Hits, Limit, Request, Transaction, Unit, Window,
};
use sluicegate::store::MemoryStore;
use sluicegate::store::remote::{CircuitState, Local, Options, Remote, RemoteStats};
use sluicegate::telemetry::Metrics;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio::time::{Instant, advance, sleep_until, timeout};

use crate::network::{Message, Outbox, SimTime, SimTransport};
use crate::rules::{PREFIX, versions};
use crate::script::Setup;

/// What a caller got: `None` when it had gone away before.
pub struct Answered {
    pub call: usize,
    pub at_ms: u64,
    pub decision: Option<Result<Decision, RequestError>>,
}

thread_local! {
    /// Ids of holds that have been made in this run.
    static HOLDS: Cell<u64> = const { Cell::new(0) };
}

/// The next run begins: it makes the ids that it makes every time.
pub fn begin() {
    HOLDS.set(0);
}

fn next_bits() -> HoldBits {
    let number = HOLDS.get() + 1;
    HOLDS.set(number);
    let mut bits = HoldBits::default();
    let (_, tail) = bits.split_at_mut(1);
    tail.copy_from_slice(&number.to_be_bytes());
    bits
}

/// The clock that engine, leases and fallback counters read: the runtime's time and an offset.
struct ReplicaClock {
    start: Instant,
    start_us: u64,
}

impl Clock for ReplicaClock {
    fn now_us(&self) -> u64 {
        self.start_us + u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

pub struct Replica {
    runtime: Runtime,
    time: SimTime,
    engine: Arc<Engine>,
    remote: Arc<Remote<SimTransport>>,
    /// The fallback counters.
    memory: Arc<MemoryStore>,
    /// Keeps the pipeline's tasks.
    _tasks: JoinSet<()>,
    outbox: Arc<Outbox>,
    answers: Arc<Mutex<Vec<Answered>>>,
    circuits: usize,
    leavers_hear_nothing: bool,
    metrics: Arc<Metrics>,
    /// Whether each server is known to be away.
    pub away: Arc<Vec<AtomicBool>>,
    pub is_paused: bool,
}

/// With two servers that are no cluster: which of them has a limit's counters.
pub fn by_window(limit: &Limit) -> usize {
    usize::from(limit.window_us <= 1_000_000)
}

/// The bounds of a setup.
pub fn bounds(setup: &Setup) -> Options {
    let small = |large: usize| if setup.tight { 2 } else { large };
    Options {
        timeout: Duration::from_millis(setup.timeout_ms),
        circuit: true,
        join: setup.join,
        lease_keys: setup.leases.then(|| small(1000)),
        denial_keys: setup.denials.then(|| small(1000)),
        max_corrections: small(1000),
        reset_log: setup.resets.then(|| CounterKey::from_raw("sg:resets")),
        bounds: setup.small.pipeline,
        hash_seed: Some(setup.seed),
    }
}

impl Replica {
    /// Starts a process at a simulated time.
    pub fn start(setup: &Setup, began_ms: u64, clock_us: u64, version: usize, away: Vec<AtomicBool>) -> Self {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let inside = runtime.enter();
        let start = Instant::now();
        let clock: Arc<dyn Clock> = Arc::new(ReplicaClock {
            start,
            start_us: clock_us + began_ms * 1000,
        });
        let (outbox, away) = (Arc::new(Outbox::default()), Arc::new(away));
        let time = SimTime { start, began_ms };
        let transport = |first, servers| SimTransport {
            time,
            outbox: Arc::clone(&outbox),
            first,
            servers,
            slots: if setup.cluster { setup.slots } else { 1 },
            away: Arc::clone(&away),
        };
        let transports: Vec<_> = if setup.cluster {
            vec![transport(0, setup.servers)]
        } else {
            (0..setup.servers).map(|server| transport(server, 1)).collect()
        };
        let circuits = transports.len();
        let keys = NonZeroUsize::new(setup.small.fallback_keys).expect("not zero");
        let secret = u128::from(setup.seed).to_le_bytes();
        let memory = Arc::new(MemoryStore::repeatable(keys, Arc::clone(&clock), secret));
        let local = Local {
            memory: Arc::clone(&memory),
            replicas: u32::try_from(setup.replicas).unwrap_or(1),
        };
        let remote = Remote::new(transports, by_window, &bounds(setup), Some(local), Arc::clone(&clock));
        let mut tasks = JoinSet::new();
        remote.spawn(&mut tasks, &probe());
        let options = EngineOptions {
            key_prefix: PREFIX.into(),
            max_concurrent: setup.small.max_concurrent,
            max_waiting: setup.small.max_waiting,
            max_noted: setup.small.max_noted,
            hold_bits: next_bits,
            ..EngineOptions::default()
        };
        let fallback = remote.fallback().cloned();
        let store = Arc::clone(&remote) as Arc<dyn sluicegate::store::Store>;
        let metrics = Arc::new(Metrics::new().expect("metrics"));
        let engine = Arc::new(Engine::new(store, fallback, options, clock, Arc::clone(&metrics)));
        engine.activate(Arc::clone(&versions()[version].rules), 1);
        drop(inside);
        Self {
            runtime,
            time,
            engine,
            remote,
            memory,
            _tasks: tasks,
            outbox,
            answers: Arc::default(),
            circuits,
            leavers_hear_nothing: setup.leavers_hear_nothing,
            metrics,
            away,
            is_paused: false,
        }
    }

    /// The simulated time that the process has come to.
    pub fn now_ms(&self) -> u64 {
        let _inside = self.runtime.enter();
        self.time.now_ms()
    }

    /// Lets the process work until a time, or until it has sent something.
    pub fn run_until(&self, until_ms: u64) -> Vec<Message> {
        let until = self.time.start + Duration::from_millis(until_ms.saturating_sub(self.time.began_ms));
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = self.outbox.filled.notified() => {}
                () = sleep_until(until) => {}
            }
        });
        self.outbox.take()
    }

    /// The process was stopped until a time: its clocks have gone on.
    pub fn jump_to(&self, to_ms: u64) {
        let by_ms = to_ms.saturating_sub(self.now_ms());
        self.runtime.block_on(advance(Duration::from_millis(by_ms)));
    }

    /// What callers were answered since the last time.
    pub fn take_answers(&self) -> Vec<Answered> {
        std::mem::take(&mut *self.answers.lock())
    }

    /// A caller asks.
    pub fn ask(&self, call: usize, request: Request, deadline_ms: Option<u64>, leaves_ms: Option<u64>) {
        let (engine, answers) = (Arc::clone(&self.engine), Arc::clone(&self.answers));
        let (time, hears_nothing) = (self.time, self.leavers_hear_nothing);
        self.runtime.spawn(async move {
            let deadline = deadline_ms.map(|ms| (Instant::now() + Duration::from_millis(ms)).into_std());
            let decide = engine.decide(&request, deadline);
            let decision = match leaves_ms {
                Some(ms) if hears_nothing => while_there(ms, decide).await,
                Some(ms) => timeout(Duration::from_millis(ms), decide).await.ok(),
                None => Some(decide.await),
            };
            answers.lock().push(Answered {
                call,
                at_ms: time.now_ms(),
                decision,
            });
        });
    }

    /// An operator makes counters as new.
    pub fn reset(&self, counters: Vec<(CounterKey, Limit)>) {
        let engine = Arc::clone(&self.engine);
        self.runtime.spawn(async move { engine.reset(&counters).await });
    }

    /// Puts a version of the rules in force.
    pub fn activate(&self, version: usize) {
        self.engine.activate(Arc::clone(&versions()[version].rules), 1);
    }

    pub fn stats(&self) -> RemoteStats {
        self.remote.stats()
    }

    /// Fallback counters that were dropped for want of room.
    pub fn evicted(&self) -> u64 {
        self.memory.stats().evicted
    }

    /// Denials that the release filter could not note.
    pub fn unnoted(&self) -> u64 {
        self.metrics.edges.unnoted_denials.get()
    }

    /// The state of each circuit.
    pub fn circuits(&self) -> Vec<CircuitState> {
        let of = |server| Some(self.remote.circuit(server)?.borrow().clone());
        (0..self.circuits).filter_map(of).collect()
    }
}

/// The answer, unless its caller is gone: what carries it out looks for that whenever the answer is not ready.
async fn while_there<F: Future>(ms: u64, decide: F) -> Option<F::Output> {
    let gone = Instant::now() + Duration::from_millis(ms);
    tokio::select! {
        biased;
        () = sleep_until(gone) => None,
        answer = decide => (Instant::now() < gone).then_some(answer),
    }
}

/// A write on a counter of nobody.
fn probe() -> Transaction {
    let limit = build(&LimitSpec::new(
        AlgorithmKind::FixedWindow,
        1_000_000,
        Window::of(Unit::Second),
    ))
    .expect("a limit");
    let check = Check {
        key: counter_key(PREFIX, Owner::Rule, &limit, "", [Part::Own("probe", "")]),
        limit,
        hits: Hits::Acquire(1),
        enforcement: Enforcement::Enforce,
    };
    Transaction {
        checks: [check].into_iter().collect(),
        ..Transaction::default()
    }
}
