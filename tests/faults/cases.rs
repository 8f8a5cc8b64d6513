//! The faults, one function each: it begins the fault, holds it, and ends it.

use std::fs;
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use crate::clock::STEPS;
use crate::load::RULES;
use crate::proxy::Network;
use crate::scene::{Scene, Shape};
use crate::support::process::PATIENCE;
use crate::support::redis::{Redis, cli};

/// What became of the counters in Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// All of them are still there: no hit may be over a limit.
    Kept,
    /// All were lost once: a key may pass its limit once more.
    Lost,
    /// Those that were not copied yet when the master died were lost.
    Asynchronous,
}

impl Data {
    /// For the table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Lost => "lost",
            Self::Asynchronous => "asynchronous copy",
        }
    }
}

/// A fault.
pub struct Case {
    pub name: &'static str,
    pub shape: Shape,
    pub data: Data,
    /// Replicas that are there to the end.
    pub survivors: &'static [usize],
    /// Whether replicas that leave still answer everything that they were asked.
    pub loses_nothing: bool,
    /// Whether the short form has it.
    pub short: bool,
    pub run: fn(&mut Scene, Duration),
}

const PLAIN: Shape = Shape::Single(&[]);
/// Loses nothing when it is killed, and takes a millisecond for each command that it reads back.
const DURABLE: Shape = Shape::Single(&["--appendonly", "yes", "--appendfsync", "always"]);
const DURABLE_SLOW_LOAD: Shape = Shape::Single(&[
    "--appendonly",
    "yes",
    "--appendfsync",
    "always",
    "--key-load-delay",
    "1000",
    "--loading-process-events-interval-bytes",
    "1024",
]);
const IMPATIENT: Shape = Shape::Single(&["--busy-reply-threshold", "100"]);

/// Its directory may be changed while it runs.
const PROTECTED: Shape = Shape::Single(&["--enable-protected-configs", "yes"]);

const fn case(name: &'static str, shape: Shape, data: Data, short: bool, run: fn(&mut Scene, Duration)) -> Case {
    Case {
        name,
        shape,
        data,
        survivors: &[0, 1],
        loses_nothing: true,
        short,
        run,
    }
}

/// All of them.
pub const CASES: &[Case] = &[
    case("none", PLAIN, Data::Kept, true, |_, hold| sleep(hold)),
    case("no Redis at the start", Shape::Absent, Data::Kept, true, absent),
    case("SIGKILL, restart; nothing on disk", PLAIN, Data::Lost, true, kill),
    case(
        "SIGKILL, restart; `appendfsync always`",
        DURABLE,
        Data::Kept,
        true,
        kill,
    ),
    case("LOADING: a slow restart", DURABLE_SLOW_LOAD, Data::Kept, false, kill),
    case("SIGSTOP, SIGCONT", PLAIN, Data::Kept, true, hang),
    case(
        "Redis hesitates: stopped for 25 ms, 6 times a second",
        PLAIN,
        Data::Kept,
        true,
        hesitate,
    ),
    case(
        "network cut: connections closed",
        PLAIN,
        Data::Kept,
        true,
        |scene, hold| network(scene, Network::Cut, hold),
    ),
    case(
        "network silent: packets lost",
        PLAIN,
        Data::Kept,
        true,
        |scene, hold| network(scene, Network::Silent, hold),
    ),
    case("network 5 ms slower", PLAIN, Data::Kept, false, |scene, hold| {
        slow(scene, 5, hold)
    }),
    case("network 50 ms slower", PLAIN, Data::Kept, true, |scene, hold| {
        slow(scene, 50, hold)
    }),
    case("network 500 ms slower", PLAIN, Data::Kept, false, |scene, hold| {
        slow(scene, 500, hold)
    }),
    case("SCRIPT FLUSH, 20 a second", PLAIN, Data::Kept, true, flush_scripts),
    case("FLUSHALL", PLAIN, Data::Lost, true, flush_all),
    case("OOM: `maxmemory` reached", PLAIN, Data::Kept, true, |scene, hold| {
        between(
            scene,
            hold,
            &["CONFIG", "SET", "maxmemory", "1"],
            &["CONFIG", "SET", "maxmemory", "0"],
        );
    }),
    case(
        "READONLY: demoted to a replica",
        PLAIN,
        Data::Kept,
        true,
        |scene, hold| {
            // Of a master that is not there, so that nothing is copied over its data.
            between(
                scene,
                hold,
                &["REPLICAOF", "127.0.0.1", "1"],
                &["REPLICAOF", "NO", "ONE"],
            );
        },
    ),
    case(
        "NOPERM: the ACL user loses EVALSHA",
        PLAIN,
        Data::Kept,
        false,
        |scene, hold| {
            let lose = ["ACL", "SETUSER", "default", "-evalsha", "-eval"];
            between(scene, hold, &lose, &["ACL", "SETUSER", "default", "+@all"]);
        },
    ),
    case(
        "NOREPLICAS: `min-replicas-to-write` not met",
        PLAIN,
        Data::Kept,
        false,
        |scene, hold| {
            let wants = |n| ["CONFIG", "SET", "min-replicas-to-write", n];
            between(scene, hold, &wants("1"), &wants("0"));
        },
    ),
    case("MISCONF: snapshots fail", PROTECTED, Data::Kept, false, misconfigure),
    case("BUSY: somebody's endless script", IMPATIENT, Data::Kept, true, busy),
    case(
        "log on a full disk, while Redis is killed",
        Shape::FullLog,
        Data::Lost,
        true,
        kill,
    ),
    case(
        "clock of one replica stepped by ± 1 h and ± 1 day",
        Shape::Clock,
        Data::Kept,
        true,
        step_clock,
    ),
    case("rules reloaded 10 times a second", PLAIN, Data::Kept, true, reload),
    Case {
        survivors: &[1],
        ..case("SIGTERM of a replica", PLAIN, Data::Kept, true, terminate)
    },
    Case {
        survivors: &[1],
        loses_nothing: false,
        ..case("SIGKILL of a replica", PLAIN, Data::Kept, false, kill_replica)
    },
    case(
        "failover: SIGKILL of the master",
        Shape::Sentinel,
        Data::Asynchronous,
        true,
        fail_over,
    ),
    case(
        "planned failover: SENTINEL FAILOVER",
        Shape::Sentinel,
        Data::Asynchronous,
        false,
        step_down,
    ),
    case(
        "slots moved to another node",
        Shape::Cluster,
        Data::Kept,
        true,
        move_slots,
    ),
    case(
        "failover: SIGKILL of one of three masters",
        Shape::Cluster,
        Data::Asynchronous,
        false,
        fail_over_shard,
    ),
];

fn absent(scene: &mut Scene, hold: Duration) {
    sleep(hold);
    scene.redis = Some(Redis::start_on(scene.redis_port, &[]));
}

fn kill(scene: &mut Scene, hold: Duration) {
    scene.redis().kill();
    sleep(hold);
    scene.redis().restart();
}

fn hang(scene: &mut Scene, hold: Duration) {
    scene.redis().process.signal("STOP");
    sleep(hold);
    scene.redis().process.signal("CONT");
}

/// Each time for longer than the store's timeout, and not for so long that anybody gives it up.
fn hesitate(scene: &mut Scene, hold: Duration) {
    let start = Instant::now();
    while start.elapsed() < hold {
        hang(scene, Duration::from_millis(25));
        sleep(Duration::from_millis(140));
    }
}

fn network(scene: &mut Scene, network: Network, hold: Duration) {
    scene.proxy().set(network);
    sleep(hold);
    scene.proxy().set(Network::Whole);
}

fn slow(scene: &mut Scene, ms: u64, hold: Duration) {
    network(scene, Network::Slow(Duration::from_millis(ms)), hold);
}

fn between(scene: &mut Scene, hold: Duration, begin: &[&str], end: &[&str]) {
    scene.command(begin);
    sleep(hold);
    scene.command(end);
}

fn flush_scripts(scene: &mut Scene, hold: Duration) {
    let start = Instant::now();
    while start.elapsed() < hold {
        scene.command(&["SCRIPT", "FLUSH"]);
        sleep(Duration::from_millis(50));
    }
}

fn flush_all(scene: &mut Scene, hold: Duration) {
    scene.command(&["FLUSHALL"]);
    sleep(hold);
}

fn misconfigure(scene: &mut Scene, hold: Duration) {
    let _dir = scene.redis().break_snapshots();
    sleep(hold);
    scene.command(&["CONFIG", "SET", "save", ""]);
}

fn busy(scene: &mut Scene, hold: Duration) {
    let port = scene.redis_port;
    let hog = spawn(move || cli(port, &["EVAL", "while true do end", "0"]));
    sleep(hold);
    scene.command(&["SCRIPT", "KILL"]);
    hog.join().expect("redis-cli");
}

fn step_clock(scene: &mut Scene, hold: Duration) {
    let clock = scene.clock.as_ref().expect("a clock");
    let pause = hold / u32::try_from(STEPS.len()).expect("a few");
    for step in STEPS {
        clock.step_to(step);
        sleep(pause);
    }
}

fn reload(scene: &mut Scene, hold: Duration) {
    let start = Instant::now();
    for n in 0.. {
        if start.elapsed() > hold {
            return;
        }
        for replica in &scene.replicas {
            // As configuration managers do it: never half a file.
            let next = replica.rules.with_extension("next");
            let other = format!("{RULES}  - key: other{n}\n    rate_limit: {{unit: hour, requests_per_unit: {n}}}\n");
            fs::write(&next, other).expect("the rules file");
            fs::rename(&next, &replica.rules).expect("the rules file");
        }
        sleep(Duration::from_millis(100));
    }
}

fn terminate(scene: &mut Scene, hold: Duration) {
    scene.replicas[0].process.signal("TERM");
    let status = scene.replicas[0].process.wait_for_exit();
    assert!(status.success(), "{status}");
    sleep(hold);
}

fn kill_replica(scene: &mut Scene, hold: Duration) {
    scene.replicas[0].process.signal("KILL");
    sleep(hold);
}

fn fail_over(scene: &mut Scene, _: Duration) {
    let sentinel = scene.sentinel.as_mut().expect("sentinels");
    sentinel.master.kill();
    wait("a new master", || sentinel.replica.cli(&["ROLE"]).starts_with("master"));
}

fn step_down(scene: &mut Scene, _: Duration) {
    let sentinel = scene.sentinel.as_ref().expect("sentinels");
    sentinel.step_down();
    wait("a new master", || sentinel.replica.cli(&["ROLE"]).starts_with("master"));
}

fn fail_over_shard(scene: &mut Scene, _: Duration) {
    let cluster = scene.cluster.as_mut().expect("a cluster");
    cluster.masters[0].kill();
    wait("a new master", || {
        cluster.replicas[0].cli(&["ROLE"]).starts_with("master")
    });
}

/// A twentieth of all slots, with what is in them.
fn move_slots(scene: &mut Scene, _: Duration) {
    let cluster = scene.cluster.as_ref().expect("a cluster");
    let [from, to] = [0, 1].map(|n| cluster.masters[n].cli(&["CLUSTER", "MYID"]));
    let (first, slots) = (format!("127.0.0.1:{}", cluster.masters[0].port), "800");
    let moved = cluster.masters[0].cli(&[
        "--cluster",
        "reshard",
        &first,
        "--cluster-from",
        &from,
        "--cluster-to",
        &to,
        "--cluster-slots",
        slots,
        "--cluster-yes",
    ]);
    assert!(moved.contains("Moving slot"), "{moved}");
}

fn wait(what: &str, mut ready: impl FnMut() -> bool) {
    let start = Instant::now();
    while !ready() {
        assert!(start.elapsed() < PATIENCE, "no {what}");
        sleep(Duration::from_millis(20));
    }
}
