//! What goes wrong: servers and Envoys that die, freeze and come back; two servers; other callers of the same limit.

use sluicegate::model::{Descriptor, Entry, Request};

use crate::shares::{demand, rules};
use crate::world::World;

const LIMIT: u64 = 1000;
const WINDOW_US: u64 = 10_000_000;

fn world(seed: u64, envoys: usize) -> World {
    World::new(seed, &rules(LIMIT, "10s"), envoys)
}

/// Demand is three times the limit, or a little below it: then leases are long, and a part of each is unused.
const DEMANDS: [f64; 3] = [300.0, 90.0, 20.0];

#[tokio::test(start_paused = true)]
async fn a_server_that_is_killed_and_its_successor_pass_no_limit() {
    for (seed, total) in (1..).zip(DEMANDS) {
        let mut world = world(seed, 4);
        let demand = demand(4, total, seed == 2);
        for _ in 0..6 {
            world.run(7, &demand).await;
            world.kill(world.servers.len() - 1);
            world.run(3, &demand).await;
            world.serve(true);
        }
        world.run(30, &demand).await;
        world.never_over(LIMIT, WINDOW_US);
        assert!(world.upstream.since(0) > LIMIT, "leases again after each");
    }
}

/// What the memory of a process knew is gone with it.
#[tokio::test(start_paused = true)]
async fn a_server_that_has_forgotten_everything_passes_no_limit() {
    for (seed, total) in (1..).zip(DEMANDS) {
        let mut world = world(seed, 4);
        let demand = demand(4, total, false);
        for _ in 0..4 {
            world.run(26, &demand).await;
            world.kill(world.servers.len() - 1);
            world.run(1, &demand).await;
            world.serve(false);
        }
        world.run(40, &demand).await;
        world.never_over(LIMIT, WINDOW_US);
        assert!(world.upstream.since(0) > LIMIT, "leases again after each");
    }
}

/// Requests wait in a stopped process, and are admitted before it has noticed the time.
#[tokio::test(start_paused = true)]
async fn an_envoy_that_stands_still_passes_no_limit_when_it_goes_on() {
    for (seed, total) in (1..).zip(DEMANDS) {
        for stopped_s in [1, 4, 8, 15, 40, 700] {
            let mut world = world(seed, 4);
            let demand = demand(4, total, false);
            world.run(23, &demand).await;
            world.stopped[0] = true;
            world.run(stopped_s, &demand).await;
            world.stopped[0] = false;
            world.run(25, &demand).await;
            world.never_over(LIMIT, WINDOW_US);
        }
    }
}

/// A hot restart: the new process has leases of its own while the old one uses up what it has.
#[tokio::test(start_paused = true)]
async fn two_processes_of_one_envoy_pass_no_limit() {
    let mut world = world(3, 8);
    let mut demand = vec![37.0; 4];
    demand.extend([0.0; 4]);
    world.run(20, &demand).await;
    demand[4..].fill(37.0);
    world.run(10, &demand).await;
    world.envoys[..4].iter_mut().for_each(crate::envoy::Envoy::disconnect);
    world.run(10, &demand).await;
    demand[..4].fill(0.0);
    world.run(40, &demand).await;
    world.never_over(LIMIT, WINDOW_US);
}

#[tokio::test(start_paused = true)]
async fn streams_that_break_again_and_again_pass_no_limit() {
    for (seed, total) in (1..).zip(DEMANDS) {
        let mut world = world(seed, 3);
        let demand = demand(3, total, true);
        for round in 0..20 {
            world.run(3, &demand).await;
            world.envoys[round % 3].disconnect();
        }
        world.never_over(LIMIT, WINDOW_US);
    }
}

/// 64 Envoys in front of two servers that share the counters.
#[tokio::test(start_paused = true)]
async fn two_servers_and_many_envoys_pass_no_limit() {
    let mut world = World::new(11, &rules(6400, "10s"), 64);
    world.serve(true);
    for skewed in [false, true] {
        let demand = demand(64, 2000.0, skewed);
        world.run(20, &demand).await;
        world.kill(0);
        world.run(12, &demand).await;
        world.serve(true);
        world.reachable[0] = false;
        world.run(20, &demand).await;
    }
    world.never_over(6400, WINDOW_US);
}

/// Requests that ask one by one and quotas count on one counter.
#[tokio::test(start_paused = true)]
async fn calls_for_each_request_and_quotas_share_one_limit() {
    let mut world = world(4, 2);
    let request = Request {
        domain: "edge".into(),
        descriptors: vec![Descriptor {
            entries: vec![Entry {
                key: "name".into(),
                value: "all".into(),
            }],
            ..Descriptor::default()
        }],
        ..Request::default()
    };
    let mut admitted = 0;
    for _ in 0..400 {
        world.run_steps(10, &[100.0, 20.0]).await;
        for _ in 0..6 {
            let decision = world.servers[0].engine.decide(&request, None).await.expect("rules");
            let is_ok = !decision.over_limit;
            admitted += u64::from(is_ok);
            let step = world.now();
            world.upstream.add(step, u32::from(is_ok));
        }
    }
    world.never_over(LIMIT, WINDOW_US);
    let by_quota: u64 = world.envoys.iter().map(|envoy| envoy.allowed).sum();
    assert!(
        admitted > 100 && by_quota > 100,
        "{admitted} by calls, {by_quota} by quotas"
    );
}
