//! The scripts that decide in Redis: what goes in and what comes out. `call.lua` describes the layout.

use std::borrow::Cow;
use std::collections::HashMap;

use smallvec::SmallVec;

use crate::algorithms::fixed_window::WindowGrid;
use crate::algorithms::op::{Answer, Grant, Op};
use crate::algorithms::transaction::{Answers, complete};
use crate::algorithms::{MAX_CHECK_HITS, Params, held};
use crate::model::time::MAX_EXACT;
use crate::model::{Algorithm, Check, CounterKey, Enforcement, HoldId, Holds, Limit, Outcome, RetryAfter, Transaction};
use crate::store::StoreError;

pub use super::source::ScriptId;

/// Doubles of a limit.
const LIMIT_LEN: usize = 6;
/// Doubles of a check.
const CHECK_LEN: usize = 6;
/// Bytes of a double.
const DOUBLE: usize = size_of::<f64>();
/// Up to this many keys or limits of a call are searched one by one.
const FEW: usize = 16;

/// One call: `EVALSHA <script> <keys> <argument>`, or `EVALSHA <script> 0 <argument> <keys>`.
#[derive(Debug)]
pub struct Call<'a> {
    /// Which script.
    pub script: ScriptId,
    /// The counters, each once; behind a log its holds; and records of holds.
    pub keys: SmallVec<[Cow<'a, str>; 2]>,
    /// What is to be decided.
    pub argument: Vec<u8>,
}

/// When a call is made.
#[derive(Debug, Clone, Copy)]
pub struct CallTime {
    /// The virtual time to decide by; 0 = Redis' own clock.
    pub decides_us: u64,
    /// The caller's clock, which says what windows of a calendar are near.
    pub near_us: u64,
}

impl CallTime {
    /// Virtual time.
    #[must_use]
    pub const fn of_virtual(now_us: u64) -> Self {
        Self {
            decides_us: now_us,
            near_us: now_us,
        }
    }
}

/// Puts transactions, to be decided in this order, into one call.
#[must_use]
pub fn encode<'a, H: Copy + Into<Op>>(transactions: &'a [Transaction<H>], time: CallTime) -> Call<'a> {
    let mut keys = ScriptKeys::default();
    let mut limits = Positions::default();
    let mut script = ScriptId::NONE;
    let places: SmallVec<[CheckPlace; 4]> = transactions
        .iter()
        .flat_map(|transaction| &transaction.checks)
        .map(|check| {
            script = script.with(ScriptId::of_limit(&check.limit));
            keys.place(&check.key, &check.limit, check.hits.into(), limits.of(&check.limit))
        })
        .collect();
    let doubles = 2 + LIMIT_LEN * limits.list.len() + transactions.len() + CHECK_LEN * places.len();
    let mut argument = Vec::with_capacity(doubles * DOUBLE);
    push(&mut argument, time.decides_us);
    push(&mut argument, limits.list.len() as u64);
    for limit in limits.list {
        push_limit(&mut argument, limit, time.near_us);
    }
    let mut places = places.into_iter();
    for transaction in transactions {
        push_count(&mut argument, transaction);
        for (check, place) in transaction.checks.iter().zip(places.by_ref()) {
            push(&mut argument, place.key);
            push(&mut argument, place.limit);
            push_check(&mut argument, check, place.record);
        }
    }
    Call {
        script,
        keys: keys.list,
        argument,
    }
}

/// Where things of a check stand, from 1.
struct CheckPlace {
    key: u64,
    limit: u64,
    /// The record of its hold; 0 = none.
    record: u64,
}

/// The keys of a call. What belongs to a counter has its hash tag, and so its slot.
#[derive(Default)]
struct ScriptKeys<'a> {
    counters: Positions<'a, CounterKey>,
    /// Of each counter, its position in `list`.
    positions: SmallVec<[u64; 2]>,
    /// Counter and hold of each record, with its position.
    records: SmallVec<[(u64, HoldId, u64); 1]>,
    list: SmallVec<[Cow<'a, str>; 2]>,
}

impl<'a> ScriptKeys<'a> {
    fn place(&mut self, key: &'a CounterKey, limit: &Limit, op: Op, limit_at: u64) -> CheckPlace {
        let index = self.counters.of(key) as usize - 1;
        let counter = match self.positions.get(index) {
            Some(known) => *known,
            None => {
                let counter = self.push(Cow::Borrowed(key.as_str()));
                self.positions.push(counter);
                if limit.hold_us > 0 && limit.algorithm == Algorithm::SlidingLog {
                    self.push(Cow::Owned(format!("{key}:holds")));
                }
                counter
            }
        };
        let record = match op {
            Op::Hold { id, .. } | Op::Settle { id, .. } | Op::ForceHold { id, .. } | Op::Release(id) => {
                self.record(key, counter, id)
            }
            _ => 0,
        };
        CheckPlace {
            key: counter,
            limit: limit_at,
            record,
        }
    }

    fn record(&mut self, key: &CounterKey, counter: u64, id: HoldId) -> u64 {
        let same = |(of, known, _): &&(u64, HoldId, u64)| *of == counter && *known == id;
        if let Some((_, _, position)) = self.records.iter().find(same) {
            return *position;
        }
        let position = self.push(Cow::Owned(format!("{key}:{id}")));
        self.records.push((counter, id, position));
        position
    }

    fn push(&mut self, key: Cow<'a, str>) -> u64 {
        self.list.push(key);
        self.list.len() as u64
    }
}

/// Distinct things in order of their first use, found again by value.
struct Positions<'a, T> {
    list: SmallVec<[&'a T; 2]>,
    index: HashMap<&'a T, usize>,
}

impl<T> Default for Positions<'_, T> {
    fn default() -> Self {
        Self {
            list: SmallVec::new(),
            index: HashMap::new(),
        }
    }
}

impl<'a, T: Eq + std::hash::Hash> Positions<'a, T> {
    /// From 1, as Lua counts.
    fn of(&mut self, item: &'a T) -> u64 {
        let known = if self.list.len() <= FEW {
            self.list.iter().position(|other| *other == item)
        } else {
            if self.index.is_empty() {
                let places = self.list.iter().enumerate();
                self.index = places.map(|(place, item)| (*item, place)).collect();
            }
            self.index.get(item).copied()
        };
        let position = known.unwrap_or_else(|| {
            self.list.push(item);
            let position = self.list.len() - 1;
            if !self.index.is_empty() {
                self.index.insert(item, position);
            }
            position
        });
        position as u64 + 1
    }
}

fn push_limit(out: &mut Vec<u8>, limit: &Limit, near_us: u64) {
    let parameters = match Params::new(limit) {
        Params::Slices(params) => [params.hits, params.slice_us, params.slices, 0],
        Params::Log(params) => [params.hits, params.window_us, 0, 0],
        Params::Bucket(params) => [
            params.capacity,
            params.hit_units,
            params.unit_rate,
            u64::from(params.pace) * 2 + u64::from(params.hold),
        ],
        Params::Fixed(params) => match params.windows {
            WindowGrid::Even(window_us) => [params.hits, window_us, 0, 0],
            WindowGrid::Calendar(calendar) => {
                let [before, own, next] = calendar.ends_near(near_us);
                [params.hits, before, own, next]
            }
        },
    };
    push(out, limit.algorithm.kind() as u64);
    for parameter in parameters {
        push(out, parameter);
    }
    let slice_us = held::params(limit).slice_us;
    push(out, if limit.hold_us > 0 { slice_us } else { 0 });
}

/// How many checks there are, negative if they are decided without weighing holds, quotas, or each other's hits.
fn push_count<H: Copy + Into<Op>>(out: &mut Vec<u8>, transaction: &Transaction<H>) {
    let checks = &transaction.checks;
    let is_plain = |check: &Check<H>| {
        matches!(check.hits.into(), Op::Acquire(_) | Op::Peek)
            && check.limit.hold_us == 0
            && !matches!(check.enforcement, Enforcement::Quota(_))
    };
    let of_another_counter =
        |(at, check): (usize, &Check<H>)| checks.iter().skip(at + 1).all(|other| other.key != check.key);
    let is_plain = (2..=FEW).contains(&checks.len())
        && checks.iter().all(is_plain)
        && checks.iter().enumerate().all(of_another_counter);
    let count = exact(checks.len() as u64);
    push_double(out, if is_plain { -count } else { count });
}

fn push_check<H: Copy + Into<Op>>(out: &mut Vec<u8>, check: &Check<H>, record: u64) {
    let (kind, hits, slice) = match check.hits.into() {
        Op::Acquire(hits) => (0, hits, 0),
        Op::Peek => (0, 0, 0),
        Op::Refund(hits) => (1, hits, 0),
        Op::Lease(hits) => (2, hits, 0),
        Op::Return { slice, hits } => (3, hits, slice),
        Op::Debit(hits) => (4, hits, 0),
        Op::Reset => (5, 0, 0),
        Op::Hold { hits, .. } => (6, hits, record),
        Op::Settle { hits, .. } if check.limit.settles_once => (10, hits, record),
        Op::Settle { hits, .. } => (7, hits, record),
        Op::Release(_) => (8, 0, record),
        Op::ForceHold { hits, .. } => (9, hits, record),
        Op::HoldMean(mean) => (11, 0, mean.min(MAX_CHECK_HITS)),
        Op::SettleOldest { hits, mean } => (12, hits, mean.min(MAX_CHECK_HITS)),
    };
    let enforcement = match check.enforcement {
        Enforcement::Enforce => 0,
        Enforcement::Shadow => 1,
        Enforcement::Quota(scope) => 2 + u64::from(scope),
    };
    for number in [kind, enforcement, hits.min(MAX_CHECK_HITS), slice] {
        push(out, number);
    }
}

fn push(out: &mut Vec<u8>, number: u64) {
    push_double(out, exact(number));
}

fn push_double(out: &mut Vec<u8>, number: f64) {
    out.extend_from_slice(&number.to_le_bytes());
}

/// Every number that is sent is below 2^53, where doubles are exact.
#[allow(clippy::cast_precision_loss, reason = "bounded by MAX_EXACT")]
fn exact(number: u64) -> f64 {
    number.min(MAX_EXACT) as f64
}

/// Reads the reply to a call of these transactions.
///
/// # Errors
/// [`StoreError::Protocol`] if it is not one.
pub fn decode<H: Copy + Into<Op>>(transactions: &[Transaction<H>], reply: &[u8]) -> Result<Vec<Answers>, StoreError> {
    let (doubles, rest) = reply.as_chunks::<DOUBLE>();
    let mut numbers = doubles.iter().map(|bytes| f64::from_le_bytes(*bytes));
    let all = numbers.next().and_then(count).and_then(|now_us| {
        let each = transactions.iter().map(|transaction| {
            let checks = transaction.checks.iter();
            let answers = checks.map(|check| answer(check, &mut numbers));
            let mut answers = answers.collect::<Option<Answers>>()?;
            complete(transaction, &mut answers, now_us);
            Some(answers)
        });
        each.collect::<Option<Vec<Answers>>>()
    });
    match all {
        Some(all) if rest.is_empty() && numbers.next().is_none() => Ok(all),
        _ => Err(StoreError::Protocol(format!(
            "a reply of {} bytes to {} transactions",
            reply.len(),
            transactions.len()
        ))),
    }
}

fn answer<H: Copy + Into<Op>>(check: &Check<H>, numbers: &mut impl Iterator<Item = f64>) -> Option<Answer> {
    let allowed = count(numbers.next()?)? == 1;
    let remaining = count(numbers.next()?)?;
    let retry_after = numbers.next()?;
    let mut outcome = Outcome {
        retry_after: match retry_after {
            _ if allowed => RetryAfter::Now,
            -1.0 => RetryAfter::Never,
            micros => RetryAfter::Micros(count(micros)?),
        },
        allowed,
        ..Outcome::admitted(remaining, count(numbers.next()?)?)
    };
    outcome.delay_us = count(numbers.next()?)?;
    let mut grant = None;
    match check.hits.into() {
        op if op.has_happened() => outcome.room = count(numbers.next()?)?,
        Op::Lease(_) => {
            let hits = count(numbers.next()?)?;
            // `complete` fills in how long it lasts.
            grant = (hits > 0).then_some(Grant { hits, left_us: 0 });
        }
        _ => {}
    }
    if check.limit.hold_us > 0 {
        outcome.holds = Holds {
            open: count(numbers.next()?)?,
            own: count(numbers.next()?)?,
            expired: count(numbers.next()?)?,
            repeated: count(numbers.next()?)? == 1,
        };
    }
    Some(Answer { outcome, grant })
}

/// A whole number that a double holds exactly.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "checked to be whole, not negative and exact"
)]
fn count(number: f64) -> Option<u64> {
    (number >= 0.0 && number <= MAX_EXACT as f64 && number.fract() == 0.0).then_some(number as u64)
}
