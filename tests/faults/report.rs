//! Runs the faults, checks what must hold for each, and writes the table.

use std::fmt::Write;
use std::time::{Duration, Instant};

use tokio::task::block_in_place;
use tokio::time::sleep;

use crate::cases::{CASES, Case, Data};
use crate::load::{Got, Kind, LIMIT, Load, Sample, WINDOW, over_admitted};
use crate::scene::{REPLICAS, Scene};
use crate::support::http::Client;
use crate::support::process::{PATIENCE, listens};

/// Canaries in a row that the store must have answered to count as back.
const IN_A_ROW: usize = 3;
/// The page that the long form writes its table into, between two marks.
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reliability.md");
const MARKS: [&str; 2] = ["<!-- table: begin -->", "<!-- table: end -->"];

/// What the replicas say of themselves.
#[derive(Debug, Clone, Default)]
struct Served {
    /// Upper bounds of the histogram of answers, in milliseconds, with how many answers took at most that long.
    buckets: Vec<(f64, u64)>,
    by_failure_mode: u64,
}

/// One line of the table.
struct Row {
    case: &'static Case,
    sent: usize,
    answered: usize,
    in_time: f64,
    longest: String,
    by_failure_mode: u64,
    over_strict: usize,
    over_local: usize,
    recovery: Duration,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_fault_is_survived() {
    let full = std::env::var("CHAOS").is_ok_and(|form| form == "full");
    let only = std::env::var("CHAOS_ONLY").ok();
    let hold = Duration::from_millis(if full { 5000 } else { 800 });
    let mut rows = Vec::new();
    for case in CASES.iter().filter(|case| full || case.short || only.is_some()) {
        if only.as_ref().is_some_and(|only| !case.name.contains(only)) {
            continue;
        }
        let row = survive(case, hold).await;
        println!("{}", line(&row));
        rows.push(row);
    }
    if full && only.is_none() {
        write_page(&rows);
    }
}

async fn survive(case: &'static Case, hold: Duration) -> Row {
    let mut scene = Scene::start(case.shape).await;
    let ports: Vec<u16> = scene.replicas.iter().map(|replica| replica.grpc_port).collect();
    let admin: Vec<u16> = case.survivors.iter().map(|n| scene.replicas[*n].admin_port).collect();
    let before = served(&admin).await;
    let load = Load::start(&ports);
    sleep(WINDOW / 2).await;
    block_in_place(|| (case.run)(&mut scene, hold));
    let over = Instant::now();
    let recovery = loop {
        if let Some(recovery) = load.recovered(over, case.survivors, IN_A_ROW) {
            break recovery;
        }
        assert!(over.elapsed() < PATIENCE, "{}: no recovery", case.name);
        sleep(Duration::from_millis(20)).await;
    };
    // A limit that was passed shows within the next window.
    sleep(WINDOW).await;
    let samples = load.finish().await;
    for n in case.survivors {
        assert!(
            listens(scene.replicas[*n].grpc_port),
            "{}: replica {n} is gone",
            case.name
        );
        let log = scene.replicas[*n].process.log();
        assert!(!log.contains("panicked"), "{}: {log}", case.name);
    }
    let served = served(&admin).await.since(&before);
    let row = row(case, &samples, &served, recovery);
    check(&row, &samples);
    row
}

fn row(case: &'static Case, samples: &[Sample], served: &Served, recovery: Duration) -> Row {
    let decided = |s: &&Sample| matches!(s.got, Got::Decision(_));
    Row {
        case,
        sent: samples.iter().filter(|s| s.got != Got::Unsent).count(),
        answered: samples.iter().filter(decided).count(),
        in_time: served.in_time(),
        longest: served.longest(),
        by_failure_mode: served.by_failure_mode,
        over_strict: over_admitted(samples, Kind::Strict, LIMIT),
        over_local: over_admitted(samples, Kind::Local, LIMIT),
        recovery,
    }
}

/// What must hold on any machine, however busy.
fn check(row: &Row, samples: &[Sample]) {
    let name = row.case.name;
    let here = |s: &&Sample| row.case.survivors.contains(&s.replica);
    let unanswered = |s: &&Sample| !matches!(s.got, Got::Decision(_));
    let missing: Vec<_> = samples.iter().filter(here).filter(unanswered).map(|s| &s.got).collect();
    assert!(
        missing.is_empty(),
        "{name}: {} not answered: {:?}",
        missing.len(),
        missing[0]
    );
    assert!(row.answered > 100, "{name}: only {} were answered", row.answered);
    if row.case.loses_nothing {
        let lost = samples.iter().filter(|s| matches!(s.got, Got::Lost | Got::Failed(_)));
        assert_eq!(lost.count(), 0, "{name}: answers lost");
    }
    let by = |kind, limits| over_admitted(samples, kind, LIMIT * limits);
    match row.case.data {
        Data::Kept => {
            assert_eq!(row.over_strict, 0, "{name}: hits over the limit");
            // What a replica has not heard of the others is at most its own part.
            let heard_nothing = over_admitted(samples, Kind::Local, LIMIT + LIMIT / REPLICAS);
            assert_eq!(
                heard_nothing, 0,
                "{name}: hits over the limit and a replica's part of it"
            );
        }
        Data::Lost | Data::Asynchronous => {
            // One window's hits were forgotten, once.
            assert_eq!(by(Kind::Strict, 2), 0, "{name}: hits over twice the limit");
            assert_eq!(by(Kind::Local, 3), 0, "{name}: hits over three times the limit");
        }
    }
}

impl Served {
    fn since(mut self, before: &Self) -> Self {
        for (bucket, earlier) in self.buckets.iter_mut().zip(&before.buckets) {
            bucket.1 -= earlier.1;
        }
        self.by_failure_mode -= before.by_failure_mode;
        self
    }

    fn all(&self) -> u64 {
        self.buckets.last().map_or(0, |bucket| bucket.1)
    }

    /// The part that was answered within the callers' 20 ms, in per cent.
    #[allow(clippy::cast_precision_loss, reason = "a few thousand")]
    fn in_time(&self) -> f64 {
        let within = self.buckets.iter().rfind(|bucket| bucket.0 <= 20.0);
        100.0 * within.map_or(0, |bucket| bucket.1) as f64 / self.all().max(1) as f64
    }

    /// The bucket of the longest answer.
    fn longest(&self) -> String {
        let bucket = self.buckets.iter().find(|bucket| bucket.1 == self.all());
        bucket.map_or_else(String::new, |bucket| format!("≤ {}", bucket.0))
    }
}

/// Sums of the replicas' metrics.
async fn served(ports: &[u16]) -> Served {
    let mut all = Served::default();
    for port in ports {
        let text = Client::new(*port).get("/metrics", &[]).await.body;
        let mut buckets = Vec::new();
        for line in text.lines() {
            let value = || line.rsplit(' ').next().and_then(|v| v.parse::<u64>().ok()).unwrap_or(0);
            if line.starts_with("sluicegate_failure_mode_decisions_total{") {
                all.by_failure_mode += value();
            }
            if line.starts_with("sluicegate_request_duration_seconds_bucket{") && line.contains("service=\"rls\"") {
                let bound = line.split("le=\"").nth(1).and_then(|rest| rest.split('"').next());
                let seconds: f64 = bound
                    .and_then(|b| b.replace("+Inf", "inf").parse().ok())
                    .expect("a bound");
                buckets.push((seconds * 1000.0, value()));
            }
        }
        if all.buckets.is_empty() {
            all.buckets = buckets;
        } else {
            for (sum, bucket) in all.buckets.iter_mut().zip(buckets) {
                sum.1 += bucket.1;
            }
        }
    }
    all
}

const HEAD: &str = "| fault | Redis | data | sent | answered | within 20 ms | longest (ms) | by failure mode | over, `deny` | over, `local` | recovery (ms) |\n\
                    |---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|\n";

fn line(row: &Row) -> String {
    format!(
        "| {} | {} | {} | {} | {} | {:.2} % | {} | {} | {} | {} | {} |",
        row.case.name,
        row.case.shape.name(),
        row.case.data.name(),
        row.sent,
        row.answered,
        row.in_time,
        row.longest,
        row.by_failure_mode,
        row.over_strict,
        row.over_local,
        row.recovery.as_millis(),
    )
}

/// Puts the table between its marks.
fn write_page(rows: &[Row]) {
    let page = std::fs::read_to_string(PAGE).expect("docs/reliability.md");
    let (head, rest) = page.split_once(MARKS[0]).expect("the first mark");
    let (_, tail) = rest.split_once(MARKS[1]).expect("the second mark");
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut table = format!("\nA {build} build; load, Redis and replicas on {cores} cores.\n\n{HEAD}");
    for row in rows {
        writeln!(table, "{}", line(row)).expect("a string takes all");
    }
    let page = format!("{head}{}\n{table}{}{tail}", MARKS[0], MARKS[1]);
    std::fs::write(PAGE, page).expect("docs/reliability.md");
}
