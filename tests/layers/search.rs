//! A search for a rule's counters among many keys of others.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use sluicegate::algorithms::op::Op;
use sluicegate::config::{Text, load};
use sluicegate::engine::{Engine, EngineOptions, MAX_FOUND, SearchPosition};
use sluicegate::model::{Clock, CounterKey, Transaction};
use sluicegate::rules::Defaults;
use sluicegate::rules::pattern::Pattern;
use sluicegate::store::remote::Remote;
use sluicegate::store::remote::transport::{Delivery, Transport};
use sluicegate::store::reset::{Cursor, NamePage};
use sluicegate::store::{MemoryStore, StoreError};
use sluicegate::telemetry::Metrics;

use crate::sim::SimClock;

/// A store of this many pages; those from a page on have so many counters of the rule.
struct Pages {
    store: MemoryStore,
    pages: u64,
    first: u64,
    counters: usize,
}

impl Transport for Pages {
    async fn send(&self, _shard: u16, calls: &[Transaction<Op>]) -> Delivery {
        Delivery::Answered(Ok(calls.iter().map(|call| self.store.check_ops(call)).collect()))
    }

    async fn scan(&self, prefix: &str, from: Cursor) -> Result<NamePage, StoreError> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let count = if from.at >= self.first { self.counters } else { 0 };
        let name = |n| CounterKey::from_raw(&format!("{prefix}user={}-{n}}}", from.at));
        let at = from.at + 1;
        Ok(NamePage {
            keys: (0..count).map(name).collect(),
            next: (at < self.pages).then_some(Cursor { at, ..from }),
        })
    }
}

/// How many counters each part of the search finds.
async fn parts(pages: u64, first: u64, counters: usize) -> Vec<usize> {
    let clock = SimClock::new(1_000_000_000_000) as Arc<dyn Clock>;
    let server = Pages {
        store: MemoryStore::new(NonZeroUsize::MIN, Arc::clone(&clock)),
        pages,
        first,
        counters,
    };
    let remote = Remote::plain(server, Duration::from_millis(15), Arc::clone(&clock));
    let metrics = Arc::new(Metrics::new().expect("metrics"));
    let engine = Engine::new(remote, None, EngineOptions::default(), clock, metrics);
    let text = Text {
        name: "rules.yaml".into(),
        text: "domain: shop\ndescriptors: [{ key: user, rate_limit: { unit: hour, requests_per_unit: 3 } }]".into(),
    };
    engine.activate(Arc::new(load(&[text], &Defaults::default()).expect("rules")), 1);
    let active = engine.active().expect("rules");
    let rule = active.rule(0).expect("a rule");
    let pattern = Pattern::new("*").expect("a pattern");
    let mut parts = Vec::new();
    let mut all = std::collections::HashSet::new();
    let mut from = SearchPosition::default();
    loop {
        let found = engine.find(&active, rule, &pattern, from).await.expect("found");
        parts.push(found.counters.len());
        for (key, _) in found.counters {
            assert!(all.insert(key), "each once");
        }
        let Some(next) = found.next else {
            return parts;
        };
        from = SearchPosition::parse(&next.to_string()).expect("as it was written");
    }
}

#[tokio::test(start_paused = true)]
async fn a_search_goes_on_where_its_time_was_over() {
    let parts = parts(10_000, 9_000, 1).await;
    assert!(parts.len() > 3 && parts[0] == 0, "{parts:?}");
    assert_eq!(parts.iter().sum::<usize>(), 1000);
}

#[tokio::test(start_paused = true)]
async fn a_search_goes_on_where_it_had_found_enough() {
    let parts = parts(100, 0, 300).await;
    assert!(parts.iter().all(|part| *part <= MAX_FOUND), "{parts:?}");
    assert_eq!((parts.len(), parts.iter().sum::<usize>()), (4, 30_000));
}

#[test]
fn positions_are_read_as_they_are_written_and_no_others() {
    for wrong in ["", "1", "0.0", "0.0.x", "0.0.0.0", "-1.0.0", "0.0.99999999999999999999"] {
        assert_eq!(SearchPosition::parse(wrong), None, "{wrong}");
    }
    assert_eq!(SearchPosition::parse("0.0.0"), Some(SearchPosition::default()));
}
