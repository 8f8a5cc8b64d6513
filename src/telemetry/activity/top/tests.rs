use std::collections::HashMap;

use rand::SeedableRng;
use rand::distr::Distribution;
use rand::rngs::SmallRng;
use rand_distr::Zipf;

use super::*;

const SECOND_US: u64 = 1_000_000;

fn all(_: &str) -> bool {
    true
}

/// A true count lies within what is said of it.
fn assert_within(said: (u64, u64), truth: u64, key: &str) {
    let (least, error) = said;
    assert!(
        least <= truth && truth <= least + error,
        "{key}: {truth} is not in {least} + {error}"
    );
}

#[test]
fn the_true_top_ten_of_a_zipf_stream_of_a_million_keys_within_the_stated_error() {
    let top = Top {
        hasher: Hasher::seeded(1),
        ..Top::default()
    };
    let zipf = Zipf::new(1_000_000.0, 1.1).unwrap();
    let mut random = SmallRng::seed_from_u64(7);
    let mut truth: HashMap<String, (u64, u64)> = HashMap::new();
    for at in 0..2_000_000_u64 {
        let rank: f64 = zipf.sample(&mut random);
        let key = format!("sg:sw:60/8:{{shop|user=u{rank}}}");
        let denied = at % 3 == 0;
        top.record(key.as_str(), denied);
        let counts = truth.entry(key).or_default();
        *counts = (counts.0 + 1, counts.1 + u64::from(denied));
        // Slices and rings take part: 50 seconds.
        if at % 40_000 == 0 {
            top.collect(SECOND_US + at * 25);
        }
    }
    for (by, count) in [
        (By::Hits, (|c: &(u64, u64)| c.0) as fn(&(u64, u64)) -> u64),
        (By::Denied, |c| c.1),
    ] {
        let list = top.list(by, Span::Minute, 10, 52 * SECOND_US, all);
        let mut order: Vec<_> = truth.iter().collect();
        order.sort_by_key(|(_, counts)| std::cmp::Reverse(count(counts)));
        let expected: Vec<&str> = order.iter().take(10).map(|(key, _)| key.as_str()).collect();
        let mut found: Vec<&str> = list.hitters.iter().map(|hitter| hitter.key.as_str()).collect();
        let mut sorted = expected.clone();
        sorted.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, sorted, "{by:?}");
        for hitter in &list.hitters {
            let (hits, denied) = truth[&hitter.key];
            assert_within((hitter.hits, hitter.hits_error), hits, &hitter.key);
            assert_within((hitter.denied, hitter.denied_error), denied, &hitter.key);
            // The bound says something: it is less than a tenth of a percent of the stream.
            assert!(hitter.hits_error < 4_000, "{hitter:?}");
        }
        assert_eq!(list.hits, 2_000_000);
    }
}

#[test]
fn a_minute_forgets_what_an_hour_still_knows() {
    let top = Top::default();
    let mut now = SECOND_US;
    top.collect(now);
    for _ in 0..5 {
        top.record("old", true);
    }
    for minute in 0..65 {
        for _ in 0..6 {
            now += 10 * SECOND_US;
            top.record("new", false);
            top.collect(now);
        }
        let known = |span| {
            let list = top.list(By::Hits, span, 10, now, all);
            list.hitters.iter().any(|hitter| hitter.key == "old")
        };
        match minute {
            0 => assert!(known(Span::Minute) && known(Span::TenMinutes) && known(Span::Hour)),
            2..9 => assert!(!known(Span::Minute) && known(Span::TenMinutes)),
            21..58 => assert!(!known(Span::TenMinutes) && known(Span::Hour), "minute {minute}"),
            _ => {}
        }
    }
    let hour = top.list(By::Hits, Span::Hour, 10, now, all);
    let counted = hour.hitters.first().map(|hitter| hitter.hits);
    // An hour and what is not a whole ten minutes yet.
    assert!(counted.is_some_and(|hits| (360..=420).contains(&hits)), "{hour:?}");
    let history = top.history("new", now);
    assert_eq!(history.iter().map(|slice| slice.hits).sum::<u64>(), counted.unwrap());
    assert!(
        history
            .iter()
            .is_sorted_by_key(|slice| std::cmp::Reverse(slice.began_us_ago))
    );
}

#[test]
fn a_million_keys_stay_in_eight_megabytes() {
    let top = Top::default();
    let mut now = SECOND_US;
    for at in 0..1_000_000_u64 {
        top.record(format!("sg:sw:60/8:{{shop|user=user-{at:032}}}").as_str(), true);
        if at % 2_000 == 0 {
            now += 8 * SECOND_US;
            top.collect(now);
        }
    }
    let spans = [Span::Minute, Span::TenMinutes, Span::Hour];
    for span in spans {
        assert_eq!(top.list(By::Denied, span, 10, now, all).hitters.len(), 10);
    }
    let collected = top.collected.lock();
    let windows: usize = [&collected.hits, &collected.denied].map(Windows::bytes).iter().sum();
    let summed: usize = collected.summed.iter().flatten().map(|sums| sums.bytes()).sum();
    let sketches = MAX_SHARDS * Sketch::new(&top.hasher).bytes();
    let bytes = windows + summed + sketches;
    assert!(bytes <= 8 << 20, "{windows} + {summed} + {sketches} bytes");
}

#[test]
fn an_attack_from_many_keys_lists_some_of_them() {
    let top = Top::default();
    for second in 1..=4 {
        for key in 0..1_000 {
            top.record(format!("{second}-{key}").as_str(), true);
        }
        top.collect(second * SECOND_US);
    }
    let list = top.list(By::Denied, Span::Minute, 1_000, 5 * SECOND_US, all);
    assert_eq!((list.denied, list.hitters.len()), (4_000, super::super::sketch::KEYS));
}

#[test]
fn a_window_is_summed_once_until_threads_are_asked_again_whatever_else_is_asked_for() {
    let top = Top::default();
    top.record("key", true);
    top.collect(SECOND_US);
    let sums = |span| top.collected.lock().sums(span);
    let (minute, hour) = (sums(Span::Minute), sums(Span::Hour));
    assert!(Arc::ptr_eq(&minute, &sums(Span::Minute)) && Arc::ptr_eq(&hour, &sums(Span::Hour)));
    top.collect(2 * SECOND_US);
    assert!(!Arc::ptr_eq(&minute, &sums(Span::Minute)), "one more second");
}
