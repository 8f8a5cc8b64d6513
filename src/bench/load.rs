//! Connections, streams, warm-up and measurement.

use std::cell::RefCell;
use std::io::Write as _;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::task::LocalSet;
use tokio::time::{sleep, sleep_until, timeout};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::answer::Answer;
use super::args::BenchArgs;
use super::client::Client;
use super::keys::KeySampler;
use super::pace::Pace;
use super::report::{ProcessCpu, Report, Tally};
use super::target::Target;
use super::template::Template;
use super::{BenchError, cpu};
use crate::model::time::micros;

/// Between two attempts to connect.
const RECONNECT: Duration = Duration::from_millis(100);

/// What all threads share.
struct Plan {
    args: BenchArgs,
    template: Template,
    settlement: Option<Template>,
    tls: Option<TlsConnector>,
    pace: Option<Arc<Pace>>,
    start: Instant,
    measure_from: Instant,
    end: Instant,
    /// Calls that may still begin; none is left after `--calls`.
    left: AtomicU64,
    /// Cancelled when no call is left.
    spent: CancellationToken,
}

impl Plan {
    fn is_over(&self) -> bool {
        self.spent.is_cancelled() || Instant::now() >= self.end
    }

    /// Takes one of the calls that may be made.
    fn may_call(&self) -> bool {
        if self.args.calls.is_none() {
            return true;
        }
        let taken = self.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1));
        if taken.is_err() {
            self.spent.cancel();
        }
        taken.is_ok()
    }
}

/// Runs the load and returns what it came to. Says on standard error when the measurement begins.
///
/// # Errors
/// When a flag makes no sense, a target cannot be connected to at the start, or a process cannot be read. Failed calls
/// are counted in the report instead.
pub async fn run(args: BenchArgs) -> Result<Report, BenchError> {
    let (template, settlement) = (args.template()?, args.settlement()?);
    let tls = args.tls()?;
    for target in &args.targets {
        drop(Client::connect(target, tls.as_ref(), args.service, None).await?);
    }
    for &pid in &args.pids {
        cpu::used(pid)?;
    }
    let start = Instant::now();
    let measure_from = start + args.warmup;
    let end = measure_from + args.duration;
    let pace = args.rate.map(|rate| Pace::start(rate, start, end)).transpose()?;
    let left = AtomicU64::new(args.calls.unwrap_or(0));
    let plan = Arc::new(Plan {
        args,
        template,
        settlement,
        tls,
        pace,
        start,
        measure_from,
        end,
        left,
        spent: CancellationToken::new(),
    });
    let threads = (0..plan.args.thread_count())
        .map(|thread| spawn(Arc::clone(&plan), thread))
        .collect::<Result<Vec<_>, _>>()?;

    sleep_until(measure_from.into()).await;
    eprintln!("measuring for {:?}", plan.args.duration);
    let before = snapshot(&plan.args.pids)?;
    plan.spent.run_until_cancelled(sleep_until(end.into())).await;
    let measured = measure_from.elapsed().min(plan.args.duration);
    let after = snapshot(&plan.args.pids)?;

    let tally = join(threads).await?;
    if let (Some(path), Some(admissions)) = (&plan.args.admissions, &tally.admissions) {
        write_admissions(path, admissions)?;
    }
    let mut report = tally.report(measured);
    report.unsent = plan.pace.as_ref().map_or(0, |pace| pace.unsent());
    #[allow(clippy::cast_precision_loss, reason = "counts of calls stay far below 2^53")]
    let calls = report.calls.max(1) as f64;
    let mut used = before
        .iter()
        .zip(&after)
        .map(|(b, a)| a.saturating_sub(*b).as_secs_f64());
    report.client_cpu_us_per_call = used.next().unwrap_or(0.0) * 1e6 / calls;
    report.cpu = plan
        .args
        .pids
        .iter()
        .zip(used)
        .map(|(&pid, seconds)| ProcessCpu {
            pid,
            seconds,
            us_per_call: seconds * 1e6 / calls,
        })
        .collect();
    Ok(report)
}

/// CPU time of this process, then of those asked for.
fn snapshot(pids: &[u32]) -> Result<Vec<Duration>, BenchError> {
    std::iter::once(std::process::id())
        .chain(pids.iter().copied())
        .map(cpu::used)
        .collect()
}

async fn join(threads: Vec<JoinHandle<Result<Tally, BenchError>>>) -> Result<Tally, BenchError> {
    let joined = tokio::task::spawn_blocking(move || {
        let mut all: Option<Tally> = None;
        for thread in threads {
            let tally = thread
                .join()
                .map_err(|_| BenchError::Runtime("a thread died".to_owned()))??;
            match &mut all {
                Some(sum) => sum.merge(tally)?,
                None => all = Some(tally),
            }
        }
        all.ok_or_else(|| BenchError::Runtime("no thread ran".to_owned()))
    });
    joined.await.map_err(|e| BenchError::Runtime(e.to_string()))?
}

/// One thread: a runtime of its own, and its share of the connections.
fn spawn(plan: Arc<Plan>, thread: u32) -> Result<JoinHandle<Result<Tally, BenchError>>, BenchError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| BenchError::Runtime(e.to_string()))?;
    std::thread::Builder::new()
        .name(format!("load-{thread}"))
        .spawn(move || {
            let tally = Rc::new(RefCell::new(Tally::new(plan.args.admissions.is_some())?));
            let lanes = LocalSet::new();
            let step = plan.args.thread_count() as usize;
            for connection in (thread..plan.args.connections).step_by(step) {
                lanes.spawn_local(lane(Arc::clone(&plan), connection, Rc::clone(&tally)));
            }
            runtime.block_on(lanes);
            drop(runtime);
            Rc::into_inner(tally)
                .map(RefCell::into_inner)
                .ok_or_else(|| BenchError::Runtime("a stream outlived its thread".to_owned()))
        })
        .map_err(|e| BenchError::Runtime(e.to_string()))
}

/// One connection, opened again whenever it is lost.
async fn lane(plan: Arc<Plan>, connection: u32, tally: Rc<RefCell<Tally>>) {
    let targets = &plan.args.targets;
    let target: &Target = &targets[connection as usize % targets.len()];
    while !plan.is_over() {
        let (service, timeout_ms) = (plan.args.service, plan.args.grpc_timeout_ms);
        let Ok((client, driver)) = Client::connect(target, plan.tls.as_ref(), service, timeout_ms).await else {
            tally.borrow_mut().fail("connect");
            sleep(RECONNECT).await;
            continue;
        };
        let driver = tokio::task::spawn_local(driver);
        let streams = (0..plan.args.streams).map(|n| {
            let index = u64::from(connection) * u64::from(plan.args.streams) + u64::from(n);
            tokio::task::spawn_local(stream(Arc::clone(&plan), index, client.clone(), Rc::clone(&tally)))
        });
        futures::future::join_all(streams.collect::<Vec<_>>()).await;
        driver.abort();
    }
}

/// One stream of calls, until the end or until the connection is lost.
async fn stream(plan: Arc<Plan>, index: u64, mut client: Client, tally: Rc<RefCell<Tally>>) {
    let args = &plan.args;
    let samplers = u64::from(args.connections) * u64::from(args.streams);
    // The arguments were checked when the template was made, so that a sampler can always be made.
    let Ok(mut keys) = KeySampler::new(args.distribution, args.keys, index, samplers) else {
        return;
    };
    let mut rng = SmallRng::seed_from_u64(args.seed.wrapping_mul(0x9e37_79b9).wrapping_add(index));
    loop {
        let due = match &plan.pace {
            Some(pace) => pace.next().await,
            None => Some(Instant::now()),
        };
        let Some(due) = due.filter(|due| *due < plan.end && plan.may_call()) else {
            return;
        };
        let (mut same_keys, mut same_rng) = (keys.clone(), rng.clone());
        let frame = plan.template.fill(|| keys.draw(&mut rng));
        let Some(answer) = call(&plan, &mut client, frame, due, &tally).await else {
            return;
        };
        if let (Answer::Held(id), Some(settlement)) = (answer, &plan.settlement) {
            let frame = settlement.settle(|| same_keys.draw(&mut same_rng), &id);
            if call(&plan, &mut client, frame, Instant::now(), &tally).await.is_none() {
                return;
            }
        }
    }
}

/// One call that was due at this time; `None` when the connection is lost.
async fn call(plan: &Plan, client: &mut Client, frame: Bytes, due: Instant, tally: &RefCell<Tally>) -> Option<Answer> {
    let sent = Instant::now();
    let answer = async {
        match plan.settlement {
            Some(_) => client.hold(frame).await,
            None => client.call(frame).await,
        }
    };
    let answer = match timeout(plan.args.timeout, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(closed)) => Err(closed),
        Err(_) => Ok(Answer::Failed("timeout".to_owned())),
    };
    let answered = Instant::now();
    let mut tally = tally.borrow_mut();
    tally.total += 1;
    let Ok(answer) = answer else {
        tally.fail("connection lost");
        return None;
    };
    // A closed loop counts what is answered within the measurement, an open loop what was due within it.
    let at = plan.pace.as_ref().map_or(answered, |_| due);
    if (plan.measure_from..plan.end).contains(&at) {
        tally.record(&answer, answered - due);
    }
    if let (Answer::Ok, Some(admissions)) = (&answer, &mut tally.admissions) {
        admissions.push((micros(sent - plan.start), micros(answered - plan.start)));
    }
    Some(answer)
}

fn write_admissions(path: &std::path::Path, admissions: &[(u64, u64)]) -> Result<(), BenchError> {
    let write = || -> std::io::Result<()> {
        let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
        for (sent, answered) in admissions {
            writeln!(file, "{sent} {answered}")?;
        }
        file.flush()
    };
    write().map_err(|e| BenchError::Write {
        path: path.display().to_string(),
        reason: e.to_string(),
    })
}
