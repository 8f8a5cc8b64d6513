//! What the streams of a server hold, as operators are told.

use sluicegate::service::rlqs::LeaseFilter;

use crate::shares::{demand, rules};
use crate::world::World;

/// What is listed as held is what Envoys can still admit, or more; and all streams answer at once.
#[tokio::test(start_paused = true)]
async fn what_is_held_is_what_envoys_have_left_at_least() {
    let mut world = World::new(9, &rules(6000, "60s"), 16);
    for seconds in [7, 3, 11, 20, 40] {
        world.run(seconds, &demand(16, 120.0, true)).await;
        let filter = LeaseFilter {
            limit: 5,
            ..LeaseFilter::default()
        };
        let list = world.servers[0].service.leases(filter).await;
        assert_eq!((list.streams, list.answered), (16, 16));
        assert_eq!(list.leases.len() as u64, list.total.min(5));
        assert!(
            list.leases
                .is_sorted_by(|one, other| one.lease.held >= other.lease.held)
        );
        let left: u64 = world.envoys.iter().map(crate::envoy::Envoy::left).sum();
        assert!(list.held >= left, "{} held, {left} left", list.held);
        assert!(list.held <= 6000, "{} held", list.held);
    }
}

/// It holds what it had, and is marked.
#[tokio::test(start_paused = true)]
async fn an_envoy_that_stands_still_is_told_as_late() {
    let mut world = World::new(9, &rules(6000, "60s"), 2);
    world.run(12, &[20.0, 20.0]).await;
    world.stopped[1] = true;
    world.run(12, &[20.0, 20.0]).await;
    let filter = LeaseFilter {
        limit: 5,
        ..LeaseFilter::default()
    };
    let list = world.servers[0].service.leases(filter).await;
    let late: Vec<_> = list.leases.iter().map(|entry| entry.is_late).collect();
    assert_eq!(late.iter().filter(|is| **is).count(), 1, "{late:?}");
}
