//! Random limits, and random traces that go where limits have their edges.

use proptest::prelude::*;
use sluicegate::algorithms::limit::{LimitSpec, build};
use sluicegate::algorithms::op::Op;
use sluicegate::model::calendar::CALENDAR_UNITS;
use sluicegate::model::{Algorithm, AlgorithmKind, Enforcement, Limit, Unit, Window, Zone};

/// One question to a store.
#[derive(Debug, Clone)]
pub struct Step {
    /// Microseconds since the trace's start.
    pub at_us: u64,
    /// Which of the trace's keys, hits and enforcement, for each check.
    pub checks: Vec<(usize, Op, Enforcement)>,
}

/// A limit and what is asked of it.
#[derive(Debug, Clone)]
pub struct Trace {
    /// One for each key.
    pub limits: Vec<Limit>,
    /// When the trace starts.
    pub start_us: u64,
    /// In order.
    pub steps: Vec<Step>,
}

/// A limit with its defaults.
pub fn limit(algorithm: AlgorithmKind, hits: u64, seconds: u32) -> Limit {
    let window = Window::times(Unit::Second, seconds);
    let spec = LimitSpec::new(algorithm, hits, window);
    build(&spec).expect("a good limit")
}

/// A token bucket.
pub fn bucket(hits: u64, seconds: u32, burst: u64) -> Limit {
    let window = Window::times(Unit::Second, seconds);
    let spec = LimitSpec {
        burst: Some(burst),
        ..LimitSpec::new(AlgorithmKind::TokenBucket, hits, window)
    };
    build(&spec).expect("a good limit")
}

/// Any limit of an algorithm: mostly small ones, whose edges are met often.
pub fn any_limit(algorithm: AlgorithmKind) -> impl Strategy<Value = Limit> {
    let of_seconds = any_seconds().prop_flat_map(move |seconds| any_limit_in(algorithm, seconds));
    if algorithm == AlgorithmKind::FixedWindow {
        return prop_oneof![3 => of_seconds, 2 => any_calendar_limit()].boxed();
    }
    of_seconds.boxed()
}

/// Any limit in windows of a calendar.
fn any_calendar_limit() -> impl Strategy<Value = Limit> {
    let zones: Vec<_> = Zone::all().collect();
    let window = (
        proptest::sample::select(CALENDAR_UNITS.to_vec()),
        proptest::sample::select(zones),
    );
    (0..=12_u64, window).prop_map(|(hits, (unit, zone))| calendar_limit(hits, unit, zone))
}

/// A limit in windows of a calendar.
pub fn calendar_limit(hits: u64, unit: Unit, zone: Zone) -> Limit {
    let window = Window {
        zone: Some(zone),
        ..Window::of(unit)
    };
    build(&LimitSpec::new(AlgorithmKind::FixedWindow, hits, window)).expect("a good limit")
}

fn any_seconds() -> impl Strategy<Value = u32> {
    prop_oneof![6 => 1..=4_u32, 2 => Just(60), 1 => 100..=1000_u32, 1 => Just(86_400 * 365)]
}

/// Any limit of an algorithm in this window.
fn any_limit_in(algorithm: AlgorithmKind, seconds: u32) -> impl Strategy<Value = Limit> {
    let hits = prop_oneof![1 => Just(0_u64), 8 => 1..=12_u64, 2 => 13..=300_u64, 1 => Just(99_991), 1 => Just(100_000)];
    let burst = proptest::option::of(1..=40_u64);
    let precision = prop_oneof![2 => Just(None), 3 => (1..=40_u32).prop_map(Some)];
    let max_delay = proptest::option::of(0..=3_000_000_u64);
    (hits, burst, precision, max_delay).prop_map(move |(hits, burst, precision, max_delay_us)| {
        let is = |kind| algorithm == kind;
        let spec = LimitSpec {
            algorithm,
            hits,
            window: Window::times(Unit::Second, seconds),
            burst: burst.filter(|_| is(AlgorithmKind::TokenBucket) && hits > 0),
            precision: precision.filter(|_| is(AlgorithmKind::SlidingWindow)),
            max_delay_us: max_delay_us.filter(|_| is(AlgorithmKind::LeakyBucket)),
            hold_us: None,
            holds_mean: false,
        };
        build(&spec).expect("a good limit")
    })
}

/// Lengths of time that matter to a limit.
fn lengths(limit: &Limit) -> Vec<u64> {
    let window = limit.window_us;
    let hit = window / limit.hits.max(1);
    let slice = match limit.algorithm {
        Algorithm::SlidingWindow { precision } => window.div_ceil(u64::from(precision)),
        _ => window.div_ceil(32),
    };
    vec![1, hit, slice, window, window + slice, slice * 40]
}

/// Time between two steps: nothing, a length that matters give or take a microsecond, or anything up to it; now and
/// then backwards.
fn pause(limit: &Limit, may_go_back: bool) -> impl Strategy<Value = i64> + use<> {
    let length = proptest::sample::select(lengths(limit)).prop_map(|length| i64::try_from(length).expect("small"));
    let back = if may_go_back { 1 } else { 0 };
    prop_oneof![
        6 => Just(0_i64),
        4 => length.clone().prop_flat_map(|length| (length - 1).max(0)..=length + 1),
        6 => length.clone().prop_flat_map(|length| 0..=length),
        back => length.prop_flat_map(|length| -length..=0),
    ]
}

fn amount(limit: &Limit) -> impl Strategy<Value = u64> + use<> {
    let hits = limit.hits;
    prop_oneof![8 => 1..=3_u64, 4 => 1..=hits + 2, 1 => Just(hits.max(1)), 1 => Just(u64::MAX)]
}

fn hits(limit: &Limit) -> impl Strategy<Value = Op> + use<> {
    prop_oneof![
        12 => amount(limit).prop_map(Op::Acquire),
        3 => Just(Op::Peek),
        2 => amount(limit).prop_map(Op::Debit),
        2 => amount(limit).prop_map(Op::Refund),
        2 => amount(limit).prop_map(Op::Lease),
        1 => Just(Op::Reset),
        // The slice is counted back from the newest that the store told of; see `exact::Slices`.
        2 => (0..=3_u64, amount(limit)).prop_map(|(slice, hits)| Op::Return { slice, hits }),
    ]
}

fn enforcement() -> impl Strategy<Value = Enforcement> {
    prop_oneof![3 => Just(Enforcement::Enforce), 2 => (0..3_u8).prop_map(Enforcement::Quota), 1 => Just(Enforcement::Shadow)]
}

/// Traces of one check a step on one key.
pub fn simple(algorithm: AlgorithmKind, may_go_back: bool) -> impl Strategy<Value = Trace> {
    any_limit(algorithm).prop_flat_map(move |limit| {
        let step = (pause(&limit, may_go_back), hits(&limit))
            .prop_map(|(pause, hits)| (pause, vec![(0, hits, Enforcement::Enforce)]));
        trace(vec![limit], step.boxed())
    })
}

/// Traces of several checks a step over a few keys of the given algorithms.
pub fn crossed(algorithms: &[AlgorithmKind], may_go_back: bool) -> impl Strategy<Value = Trace> + use<> {
    let limits: Vec<_> = algorithms.iter().map(|kind| any_limit(*kind)).collect();
    limits.prop_flat_map(move |limits| {
        let checks: Vec<_> = limits
            .iter()
            .enumerate()
            .map(|(key, limit)| (Just(key), hits(limit), enforcement()).boxed())
            .collect();
        let checks = proptest::collection::vec(proptest::strategy::Union::new(checks), 1..=5);
        let pauses: Vec<_> = limits.iter().map(|limit| pause(limit, may_go_back).boxed()).collect();
        let step = (proptest::strategy::Union::new(pauses), checks);
        trace(limits, step.boxed())
    })
}

/// Traces of a rule whose numbers change: each check names one of a few limits.
pub fn changing(algorithm: AlgorithmKind) -> impl Strategy<Value = Trace> {
    changed_limits(algorithm).prop_flat_map(move |limits| {
        let checks = (0..limits.len()).prop_flat_map({
            let limits = limits.clone();
            move |limit| hits(&limits[limit]).prop_map(move |hits| vec![(limit, hits, Enforcement::Enforce)])
        });
        let pause = pause(&limits[0], false);
        trace(limits, (pause, checks).boxed())
    })
}

/// Some limits as a rule's numbers change: hits, burst, precision, window. A log's window is part of its counter's name.
pub fn changed_limits(algorithm: AlgorithmKind) -> impl Strategy<Value = Vec<Limit>> {
    let is_one = algorithm == AlgorithmKind::SlidingLog;
    let seconds = (
        any_seconds(),
        proptest::collection::vec(any_seconds(), 3),
        any::<bool>(),
    );
    seconds.prop_flat_map(move |(first, others, is_same)| {
        let limits: Vec<_> = others
            .into_iter()
            .map(|other| any_limit_in(algorithm, if is_one || is_same { first } else { other }))
            .collect();
        (limits, 2..=3_usize).prop_map(|(mut limits, count)| {
            limits.truncate(count);
            limits
        })
    })
}

type RawStep = (i64, Vec<(usize, Op, Enforcement)>);

fn trace(limits: Vec<Limit>, step: BoxedStrategy<RawStep>) -> impl Strategy<Value = Trace> {
    let start = prop_oneof![
        Just(1_u64),
        Just(1_763_000_000_000_000_u64),
        1..=1_900_000_000_000_000_u64
    ];
    let steps = proptest::collection::vec(step, 1..50);
    (start, steps).prop_map(move |(start_us, raw)| {
        let mut at_us = 0_u64;
        let steps = raw.into_iter().map(|(pause, checks)| {
            at_us = at_us.saturating_add_signed(pause);
            Step { at_us, checks }
        });
        Trace {
            start_us,
            steps: steps.collect(),
            limits: limits.clone(),
        }
    })
}
