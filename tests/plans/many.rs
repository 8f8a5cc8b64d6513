//! A million tenants: what they cost in memory, and that they come into force.

use std::fmt::Write;
use std::fs;

use crate::{Shop, until};

/// `SLUICEGATE_TENANTS=1000000` is the measurement (docs/plans.md); the usual run has fewer, for its time.
fn tenants() -> usize {
    std::env::var("SLUICEGATE_TENANTS").map_or(100_000, |number| number.parse().expect("a number"))
}

/// Tables that follow one another: were they kept, even a few tenants would show it.
const ROUNDS: usize = 15;

fn text(plan: &str) -> String {
    let mut text = String::new();
    for at in 0..tenants() {
        let _ = writeln!(text, "tenant-{at:012},{plan}");
    }
    text
}

/// Memory of a process that is in use, in bytes.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the status");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

#[tokio::test]
async fn many_tenants_cost_tens_of_bytes_each() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("tenants.csv");
    fs::write(&path, "nobody,free\n").expect("the file");
    let shop = Shop::start(&format!("{{ file: {} }}", path.display()), &[]);
    // What the first questions of each kind take is no matter of tenants.
    shop.until_plan("somebody", "free").await;
    shop.passes("somebody").await;
    shop.reads("success").await;
    let before = resident(shop.server.process.id());
    fs::write(&path, text("pro")).expect("the file");
    let last = format!("tenant-{:012}", tenants() - 1);
    shop.until_plan(&last, "pro").await;
    let bytes = shop.metric("sluicegate_plan_source_bytes", "").await.expect("a metric");
    let grown = resident(shop.server.process.id()).saturating_sub(before);
    println!("{} tenants: {bytes} bytes, the process grew by {grown}", tenants());
    assert!(bytes <= 64.0 * tenants() as f64, "{bytes} bytes");
    assert_eq!(shop.passes(&last).await, 3);
    // Again and again, without growing: the table before is freed. At most two are there at once.
    for round in 0..ROUNDS {
        let plan = ["free", "pro"][round % 2];
        fs::write(&path, text(plan)).expect("the file");
        shop.until_plan(&last, plan).await;
    }
    until("the tables before are freed", async || {
        let grown = resident(shop.server.process.id()).saturating_sub(before);
        println!("after {ROUNDS} more: {grown}");
        grown as f64 <= 2.0 * bytes + (8 << 20) as f64
    })
    .await;
}
