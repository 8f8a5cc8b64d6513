//! One check of a transaction: its outcome, and its effect on the state.

use super::states::States;
use crate::algorithms::op::{Answer, Grant, Op};
use crate::algorithms::{MAX_CHECK_HITS, State, debit, decide, held, lease_left_us, refund, return_to};
use crate::model::{Holds, Limit, Outcome, RetryAfter};

/// The placeholder for a check that has not been judged yet.
pub(super) const UNDECIDED: Answer = plain(Outcome::refused(0, RetryAfter::Never, 0));

pub(super) const fn plain(outcome: Outcome) -> Answer {
    Answer { outcome, grant: None }
}

/// Counts or holds hits that have happened: debits, settlements and forced holds.
pub(super) fn happen(limit: &Limit, op: Op, state: &mut State, now_us: u64) -> Answer {
    match op {
        Op::Debit(hits) => debit_one(limit, state, now_us, hits),
        Op::Settle { hits, .. } | Op::SettleOldest { hits, .. } => {
            let hits = hits.min(MAX_CHECK_HITS);
            let State::Held(held) = state else {
                return settle_unheld(limit, state, now_us, hits);
            };
            let counter = held::plain(limit);
            let verdict = decide(&counter, held.counter(), now_us, hits);
            let allowed = hits == 0 || verdict.allowed;
            let holds = match op {
                Op::Settle { id, .. } => held::settle(limit, held, now_us, id, hits),
                _ => Holds {
                    own: held::settle_oldest(limit, held, now_us, hits).saturating_mul(op.mean().unwrap_or(0)),
                    ..Holds::default()
                },
            };
            let verdict = Outcome {
                allowed: allowed || holds.repeated,
                retry_after: if allowed || holds.repeated {
                    RetryAfter::Now
                } else {
                    verdict.retry_after
                },
                room: if allowed || holds.repeated {
                    0
                } else {
                    verdict.remaining
                },
                holds,
                ..verdict
            };
            plain(with_stand_of(verdict, &stands(limit, op, state, now_us)))
        }
        Op::ForceHold { hits, id } => {
            let own = match state {
                State::Held(held) => held::force_hold(limit, held, now_us, id, hits.min(MAX_CHECK_HITS)),
                _ => 0,
            };
            let mut answer = freed(limit, state, now_us);
            answer.outcome.holds.own = own;
            answer
        }
        _ => UNDECIDED,
    }
}

/// The outcome of a peek at a check's counter.
pub(super) fn stands(limit: &Limit, op: Op, state: &State, now_us: u64) -> Outcome {
    match (op.mean(), state) {
        (Some(mean), State::Held(state)) => held::stands(limit, state, now_us, mean),
        _ => decide(limit, state, now_us, 0),
    }
}

/// A settlement on a counter without holds.
fn settle_unheld(limit: &Limit, state: &mut State, now_us: u64, hits: u64) -> Answer {
    if hits > 0 {
        return debit_one(limit, state, now_us, hits);
    }
    freed(limit, state, now_us)
}

fn debit_one(limit: &Limit, state: &mut State, now_us: u64, hits: u64) -> Answer {
    let hits = hits.min(MAX_CHECK_HITS);
    let verdict = decide(limit, state, now_us, hits);
    debit(limit, state, now_us, hits);
    plain(Outcome {
        room: if verdict.allowed { 0 } else { verdict.remaining },
        ..with_stand_of(verdict, &decide(limit, state, now_us, 0))
    })
}

/// The answer to a check if its transaction passes. `before`: hits of earlier checks of the same counter.
pub(super) fn judge(limit: &Limit, op: Op, state: &State, now_us: u64, before: u64) -> Answer {
    let hits = match op {
        Op::Acquire(hits) => hits.min(MAX_CHECK_HITS),
        Op::Lease(most) => return judge_lease(limit, state, now_us, before, most),
        Op::Hold { .. } | Op::HoldMean(_) => return judge_hold(limit, op, state, now_us, before),
        // The transaction's end sets this answer.
        Op::Refund(_) | Op::Return { .. } | Op::Release(_) | Op::Reset => return freed(limit, state, now_us),
        // Debits, settlements and forced holds are not judged: they have been counted by now.
        Op::Peek | Op::Debit(_) | Op::Settle { .. } | Op::SettleOldest { .. } | Op::ForceHold { .. } => 0,
    };
    if before == 0 {
        return plain(decide(limit, state, now_us, hits));
    }
    let outcome = decide(limit, state, now_us, before + hits.max(1));
    if hits > 0 && outcome.allowed {
        return plain(outcome);
    }
    // A peek or a denial adds nothing to the hits before it.
    plain(with_stand_of(outcome, &decide(limit, state, now_us, before)))
}

/// Grants the hits that are left, up to `most`.
fn judge_lease(limit: &Limit, state: &State, now_us: u64, before: u64, most: u64) -> Answer {
    let stands = decide(limit, state, now_us, before);
    if lease_left_us(limit, 0, now_us).is_none() {
        return plain(Outcome {
            allowed: false,
            retry_after: RetryAfter::Never,
            delay_us: 0,
            ..stands
        });
    }
    let hits = most.min(stands.remaining).min(MAX_CHECK_HITS);
    if hits == 0 {
        let denied = decide(limit, state, now_us, before + 1);
        return plain(with_stand_of(denied, &stands));
    }
    Answer {
        outcome: decide(limit, state, now_us, before + hits),
        grant: Some(Grant { hits, left_us: 0 }),
    }
}

/// Judges a hold of hits, or of all that are left if the hits are more than the limit could ever admit.
fn judge_hold(limit: &Limit, op: Op, state: &State, now_us: u64, before: u64) -> Answer {
    let State::Held(state) = state else {
        return UNDECIDED;
    };
    let (outcome, own) = match op {
        Op::Hold { hits, id } => held::judge(limit, state, now_us, id, hits.min(MAX_CHECK_HITS), before),
        _ => held::judge_mean(limit, state, now_us, op.mean().unwrap_or(1), before),
    };
    let holds = Holds {
        own,
        ..Holds::default()
    };
    plain(Outcome { holds, ..outcome })
}

/// Hits that a check adds to its counter's holds if its transaction passes.
pub(super) const fn held_by(op: Op, answer: &Answer) -> u64 {
    match op {
        Op::Hold { .. } | Op::HoldMean(_) if answer.outcome.allowed => answer.outcome.holds.own,
        _ => 0,
    }
}

/// Makes the hold that a check was granted; returns whether it was granted one. `adds`: an earlier check of the transaction has made
/// it.
pub(super) fn hold<'s>(
    limit: &Limit,
    op: Op,
    answer: &Answer,
    state: impl FnOnce() -> &'s mut State,
    now_us: u64,
    adds: bool,
) -> bool {
    let own = held_by(op, answer);
    if own == 0 {
        return false;
    }
    if let State::Held(state) = state() {
        match op {
            Op::Hold { id, .. } => held::hold(limit, state, now_us, id, own, adds),
            _ => held::hold_mean(limit, state, now_us),
        }
    }
    true
}

/// Adds the counter's open holds to an answer.
pub(super) fn tell_holds(limit: &Limit, op: Op, state: &State, now_us: u64, answer: &mut Answer) {
    if let State::Held(state) = state {
        let each = op.mean().unwrap_or(1);
        answer.outcome.holds.open = held::open(limit, state, now_us).saturating_mul(each);
    }
}

/// Takes the hits of holds that have expired since they were last taken.
pub(super) fn take_expired(states: &mut impl States, index: usize) -> u64 {
    // Mostly none has: then the state need not be written.
    match states.read(index) {
        State::Held(state) if held::has_expired(state) => {}
        _ => return 0,
    }
    match states.write(index) {
        State::Held(state) => held::take_expired(state),
        _ => 0,
    }
}

/// Hits that a check adds to its counter.
pub(super) fn counted(op: Op, answer: &Answer, passes: bool) -> u64 {
    match op {
        Op::Acquire(hits) if passes && answer.outcome.allowed => hits.min(MAX_CHECK_HITS),
        Op::Lease(_) if passes => answer.grant.map_or(0, |grant| grant.hits),
        Op::Debit(hits) => hits.min(MAX_CHECK_HITS),
        Op::Settle { hits, .. } if !answer.outcome.holds.repeated => hits.min(MAX_CHECK_HITS),
        Op::SettleOldest { hits, .. } => hits.min(MAX_CHECK_HITS),
        _ => 0,
    }
}

/// Carries out a refund, return, release or reset.
pub(super) fn free(limit: &Limit, op: Op, state: &mut State, now_us: u64) {
    match op {
        Op::Refund(hits) => refund(limit, state, now_us, hits.min(MAX_CHECK_HITS)),
        Op::Return { slice, hits } => return_to(limit, state, now_us, slice, hits.min(MAX_CHECK_HITS)),
        // Requests with open holds are still in progress: their holds stay, to be settled.
        Op::Reset => match state {
            State::Held(held) => *held.counter_mut() = State::new(&held::plain(limit)),
            _ => *state = State::new(limit),
        },
        Op::Release(id) => {
            if let State::Held(state) = state {
                held::release(limit, state, now_us, id);
            }
        }
        _ => {}
    }
}

/// The verdict of one outcome with the numbers of another.
pub(super) fn with_stand_of(verdict: Outcome, stands: &Outcome) -> Outcome {
    Outcome {
        remaining: stands.remaining,
        reset_after_us: stands.reset_after_us,
        delay_us: 0,
        ..verdict
    }
}

/// The answer to a refund, return, release, reset or forced hold, which is always allowed.
pub(super) fn freed(limit: &Limit, state: &State, now_us: u64) -> Answer {
    plain(Outcome {
        allowed: true,
        retry_after: RetryAfter::Now,
        ..decide(limit, state, now_us, 0)
    })
}
