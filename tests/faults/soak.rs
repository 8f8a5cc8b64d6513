//! Hours of steady load: memory and file descriptors stay flat. `make soak MINUTES=60`.

use std::fs;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::load::{Got, Load};
use crate::scene::{Scene, Shape};

/// Measurements in a run.
const MEASUREMENTS: u32 = 20;
/// Growth of memory between the second quarter and the last that is taken for noise: so much and a tenth more.
const NOISE_KIB: u64 = 4096;
/// Growth of open files that is: connections that happen to be made anew.
const NOISE_FILES: usize = 8;

/// What a process holds.
#[derive(Debug, Clone, Copy)]
pub struct Use {
    pub resident_kib: u64,
    pub files: usize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes MINUTES; `make soak` runs it"]
async fn memory_and_files_stay_flat() {
    let minutes: u64 = std::env::var("MINUTES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1);
    let scene = Scene::start(Shape::Single(&[])).await;
    let ports: Vec<u16> = scene.replicas.iter().map(|replica| replica.grpc_port).collect();
    let ids: Vec<u32> = scene.replicas.iter().map(|replica| replica.process.id()).collect();
    let (load, start) = (Load::start(&ports), Instant::now());
    let mut uses: Vec<Vec<Use>> = vec![Vec::new(); ids.len()];
    println!("| seconds | replica | resident (KiB) | open files |\n|---:|---:|---:|---:|");
    for _ in 0..MEASUREMENTS {
        sleep(Duration::from_secs(minutes * 60) / MEASUREMENTS).await;
        for (n, id) in ids.iter().enumerate() {
            let used = measure(*id);
            println!(
                "| {} | {n} | {} | {} |",
                start.elapsed().as_secs(),
                used.resident_kib,
                used.files
            );
            uses[n].push(used);
        }
    }
    let samples = load.finish().await;
    let unanswered = samples.iter().filter(|s| !matches!(s.got, Got::Decision(_))).count();
    assert_eq!(unanswered, 0, "of {} requests", samples.len());
    println!("{} requests, all answered", samples.len());
    for (n, uses) in uses.iter().enumerate() {
        let quarter = uses.len() / 4;
        let [early, late] = [&uses[quarter..2 * quarter], &uses[3 * quarter..]];
        let resident = |uses: &[Use]| uses.iter().map(|u| u.resident_kib).sum::<u64>() / uses.len() as u64;
        let files = |uses: &[Use]| uses.iter().map(|u| u.files).max().unwrap_or(0);
        let allowed = resident(early) * 11 / 10 + NOISE_KIB;
        assert!(resident(late) <= allowed, "replica {n}: memory grows: {uses:?}");
        assert!(
            files(late) <= files(early) + NOISE_FILES,
            "replica {n}: open files grow: {uses:?}"
        );
    }
}

/// Of a living process.
pub fn measure(id: u32) -> Use {
    let status = fs::read_to_string(format!("/proc/{id}/status")).expect("a living process");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = resident.and_then(|text| text.trim().trim_end_matches(" kB").parse().ok());
    Use {
        resident_kib: kib.expect("its memory"),
        files: fs::read_dir(format!("/proc/{id}/fd")).expect("its files").count(),
    }
}
