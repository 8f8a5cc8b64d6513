//! What holds take, and that they end.

use super::*;
use crate::algorithms::limit::{LimitSpec, build};
use crate::model::{AlgorithmKind, Unit, Window};

fn limit() -> Limit {
    let spec = LimitSpec {
        hold_us: Some(600_000_000),
        ..LimitSpec::new(AlgorithmKind::SlidingWindow, 4_000_000_000, Window::of(Unit::Hour))
    };
    build(&spec).unwrap()
}

fn id(number: u64) -> HoldId {
    HoldId::new(number, [0; 9])
}

/// 100,000 open holds take less than 30 MB, of as many counters or of one.
#[test]
fn an_open_hold_is_small() {
    let limit = limit();
    let mut one = State::new(&limit);
    hold(&limit, &mut one, 1, id(1), 500, false);
    let bytes = size_of::<State>() + one.heap_bytes();
    assert!(bytes <= 280, "{bytes} bytes of a counter with one hold");
    let mut many = State::new(&limit);
    for number in 0..100_000 {
        hold(&limit, &mut many, number, id(number), 500, false);
    }
    let bytes = size_of::<State>() + many.heap_bytes();
    assert!(bytes <= 5_000_000, "{bytes} bytes of 100,000 holds");
}

/// The end of a great many holds is spread over the holds that follow, so that none of them pays for all.
#[test]
fn one_hold_clears_few_away() {
    let limit = limit();
    let mut state = State::new(&limit);
    (0..100_000).for_each(|number| hold(&limit, &mut state, number, id(number), 500, false));
    assert_eq!(state.records.len(), 100_000);
    let (later_us, mut before) = (2_000_000_000, 100_000);
    for number in 0..2_000 {
        hold(&limit, &mut state, later_us, id(later_us + number), 500, false);
        let cleared = before + 1 - state.records.len();
        assert!(cleared <= MOST_CLEARED, "{cleared} records for one hold");
        before = state.records.len();
    }
    assert_eq!(before, 2_000);
    assert!(state.heap_bytes() <= 400_000, "{} bytes", state.heap_bytes());
}

/// Ids that were made up, for any time, do not stay among those of a busy counter.
#[test]
fn what_was_made_up_goes() {
    let limit = limit();
    let mut state = State::new(&limit);
    for number in 0..200_000_u64 {
        let now_us = 1_000_000_000 + number * 100_000;
        hold(&limit, &mut state, now_us, id(now_us), 1, false);
        // A year ahead, and long ago.
        let made_up = if number % 2 == 0 {
            now_us + 31_536_000_000_000
        } else {
            number
        };
        settle(&limit, &mut state, now_us, id(made_up), 0);
    }
    // Two for each tenth of a second of a ttl, and as many that have ended and were not looked at yet.
    assert!(state.records.len() < 30_000, "{} records", state.records.len());
}

/// What has been settled goes, too: a busy counter does not grow.
#[test]
fn records_end_with_their_slices() {
    let limit = limit();
    let mut state = State::new(&limit);
    for number in 0..100_000 {
        let now_us = number * 1_000_000;
        hold(&limit, &mut state, now_us, id(now_us), 500, false);
        settle(&limit, &mut state, now_us, id(now_us), 1);
    }
    assert!(state.records.len() <= 700, "{} records", state.records.len());
    assert_eq!(open(&limit, &state, 100_000_000_000), 0);
}
