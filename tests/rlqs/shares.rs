//! Which share of a limit Envoys can use, and that they never pass it.

use std::fmt::Write;

use sluicegate::model::{Calendar, Unit, Zone};

use crate::world::World;

/// Rules of one limit.
pub fn rules(limit: u64, window: &str) -> String {
    format!(
        "domain: edge
rlqs: {{}}
descriptors:
  - key: name
    rate_limit: {{ requests_per_unit: {limit}, window: {window} }}
"
    )
}

/// How demand is spread over Envoys: as much to each, or nine tenths to the first.
#[allow(clippy::cast_precision_loss, reason = "small")]
pub fn demand(envoys: usize, total: f64, skewed: bool) -> Vec<f64> {
    let first = if skewed && envoys > 1 { 0.9 } else { 1.0 / envoys as f64 };
    let rest = if envoys > 1 {
        (1.0 - first) / (envoys - 1) as f64
    } else {
        0.0
    };
    let part = |at| if at == 0 { first } else { rest };
    (0..envoys).map(|at| total * part(at)).collect()
}

struct Share {
    /// Of the limit, in percent, once a window has passed.
    used: f64,
    /// Requests denied in the first seconds, in percent, while demand is a tenth of the limit.
    denied_at_start: f64,
}

#[allow(clippy::cast_precision_loss, reason = "small")]
async fn share(limit: u64, window_s: u64, envoys: usize, skewed: bool) -> Share {
    let rules = rules(limit, &format!("{window_s}s"));
    let rate = limit as f64 / window_s as f64;
    let mut calm = World::new(5, &rules, envoys);
    calm.run(20, &demand(envoys, rate / 4.0, skewed)).await;
    calm.never_over(limit, window_s * 1_000_000);
    let (allowed, denied) = calm.envoys.iter().fold((0, 0), |(allowed, denied), envoy| {
        (allowed + envoy.allowed, denied + envoy.denied)
    });
    let mut world = World::new(7, &rules, envoys);
    let demand = demand(envoys, rate * 3.0, skewed);
    world.run(window_s.max(10), &demand).await;
    let start = world.now();
    let seconds = (5 * window_s).max(60);
    world.run(seconds, &demand).await;
    world.never_over(limit, window_s * 1_000_000);
    Share {
        used: 100.0 * world.upstream.since(start) as f64 / (rate * seconds as f64),
        denied_at_start: 100.0 * denied as f64 / (allowed + denied) as f64,
    }
}

async fn table(cases: &[(u64, u64)], envoys: &[usize]) -> String {
    let mut out = String::new();
    for &(limit, window_s) in cases {
        for &envoys in envoys {
            for skewed in [false, true] {
                if skewed && envoys == 1 {
                    continue;
                }
                let share = share(limit, window_s, envoys, skewed).await;
                let spread = if skewed { "90:10" } else { "even" };
                let _ = writeln!(
                    out,
                    "| {window_s} s | {limit} | {envoys} | {spread} | {:.1} % | {:.2} % |",
                    share.used, share.denied_at_start
                );
            }
        }
    }
    out
}

/// The table of docs/rlqs.md.
#[tokio::test(start_paused = true)]
#[ignore = "minutes; it prints a table"]
async fn table_of_the_documentation() {
    let windows = [(100, 1), (1000, 10), (6000, 60), (60_000, 600)];
    println!("{}", table(&windows, &[1, 4, 16]).await);
}

/// Windows of a minute are used up, whatever the spread of demand; of 20 s, three quarters are.
#[tokio::test(start_paused = true)]
async fn limits_are_used_up_however_demand_is_spread() {
    for (limit, window_s, least) in [(6000, 60, 95.0), (2000, 20, 75.0)] {
        for (envoys, skewed) in [(1, false), (2, true), (4, false), (4, true), (16, false), (16, true)] {
            let share = share(limit, window_s, envoys, skewed).await;
            assert!(
                share.used >= least,
                "{envoys} Envoys, skewed: {skewed}: {:.1} % of a window of {window_s} s",
                share.used
            );
        }
    }
}

/// Over the end of a day of a calendar: what is leased before it is used or given back after it, and each day has its own.
#[tokio::test(start_paused = true)]
async fn a_day_of_a_calendar_is_never_passed() {
    const LIMIT: u64 = 3000;
    let rules = rules(LIMIT, "{ calendar: day, time_zone: Europe/Berlin }");
    let mut world = World::new(11, &rules, 4);
    let zone = Zone::named("Europe/Berlin").expect("a zone");
    let day = Calendar::new(Unit::Day, zone).expect("a day");
    let left_us = day.end_us(world.clock.now_us()) - world.clock.now_us();
    tokio::time::sleep(std::time::Duration::from_micros(left_us - 30_000_000)).await;
    let demand = demand(4, 300.0, false);
    world.run(30, &demand).await;
    let midnight = world.now();
    world.run(60, &demand).await;
    let (all, after) = (world.upstream.since(0), world.upstream.since(midnight));
    let before = all - after;
    for admitted in [before, after] {
        assert!(
            (LIMIT * 9 / 10..=LIMIT).contains(&admitted),
            "{before} before the end of the day, {after} after it"
        );
    }
}

/// While quota is free, only the first request of a bucket on each Envoy finds no assignment.
#[tokio::test(start_paused = true)]
async fn a_new_bucket_denies_nobody_while_quota_is_free() {
    for (envoys, skewed) in [(1, false), (4, false), (4, true), (16, false), (16, true)] {
        let mut world = World::new(3, &rules(60_000, "60s"), envoys);
        world.run(30, &demand(envoys, 250.0, skewed)).await;
        let (allowed, denied) = world.answered();
        assert!(
            denied * 100 < allowed,
            "{envoys} Envoys, skewed: {skewed}: {denied} of {allowed} denied"
        );
    }
}
