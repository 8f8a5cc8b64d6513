//! The layer that keeps [`Standby`] in step with the shared store under it, and the shared store with it.

use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant as Deadline};

use async_trait::async_trait;
use futures::future::join_all;
use tokio::time::{Instant, sleep, timeout};

use super::owed::Taken;
use super::{Fate, Standby};
use crate::model::{Check, CounterKey, Limit, Transaction};
use crate::store::turns::Turns;
use crate::store::{Outcomes, Refusal, Store, StoreError};

/// Debts that are on their way at the same time.
const AT_ONCE: usize = 64;
/// Once the store is back, debts are told for so long before it is asked for decisions. What is owed still, because it is
/// much or grows as fast, is told with each key's next call (before it), or by [`settle_forever`].
const FIRST: Duration = Duration::from_millis(300);
/// Once this replica has told what it owes, others may still be about to: their probes find the store back at other
/// moments (see `breaker`). For so long nobody's decisions are asked of it, so that few are made without their debts.
const OTHERS: Duration = Duration::from_millis(200);
/// And for so long what came meanwhile is told.
const LAST: Duration = Duration::from_millis(100);
/// Between two looks for debts on counters that nobody asks for any more.
const EVERY: Duration = Duration::from_millis(250);
/// Each of which tells for so long at most.
const TURN: Duration = Duration::from_secs(1);

/// The layer. It stands under the circuit breaker, which settles before it lets requests through again.
pub struct Follow<S> {
    inner: S,
    standby: Arc<Standby>,
    /// Which limits' counters the store under it has.
    serves: fn(&Limit) -> bool,
    /// How long a call may take, with all that has to be told first.
    timeout: Duration,
}

impl<S: Store> Follow<S> {
    /// A layer over `inner`, which has the counters of the limits that `serves` picks.
    pub const fn new(inner: S, standby: Arc<Standby>, serves: fn(&Limit) -> bool, timeout: Duration) -> Self {
        Self {
            inner,
            standby,
            serves,
            timeout,
        }
    }

    /// Tells what is owed, for so long at most. What cannot be told is kept for later and keeps nobody else's
    /// from being told.
    ///
    /// # Errors
    /// When a server is away.
    async fn tell(&self, patience: Duration) -> Result<(), StoreError> {
        let start = Instant::now();
        let mut later = HashSet::new();
        let mut away = None;
        while start.elapsed() < patience {
            let ripe = |key: &CounterKey, limit: &Limit| (self.serves)(limit) && !later.contains(key);
            let owed = self.standby.owed.take_any(AT_ONCE, ripe);
            if owed.is_empty() {
                break;
            }
            let owed: Vec<_> = owed.into_iter().map(|owed| Sending::new(&self.standby, owed)).collect();
            let sent = owed.len();
            let failed = self.tell_all(owed, None).await;
            let nobody_answers = sent > 0 && failed.len() == sent;
            for (debt, error) in failed {
                later.insert(debt.failed(&error));
                if error.is_away() {
                    away = Some(error);
                }
            }
            if nobody_answers {
                break;
            }
        }
        away.map_or(Ok(()), Err)
    }

    /// Tells these debts, all at the same time; those that did not arrive, and why not.
    async fn tell_all<'s>(&self, owed: Vec<Sending<'s>>, deadline: Option<Deadline>) -> Vec<(Sending<'s>, StoreError)> {
        let calls = owed.into_iter().map(|owed| self.tell_one(owed, deadline));
        join_all(calls).await.into_iter().filter_map(Result::err).collect()
    }

    async fn tell_one<'s>(
        &self,
        sending: Sending<'s>,
        deadline: Option<Deadline>,
    ) -> Result<(), (Sending<'s>, StoreError)> {
        let Some(owed) = self.standby.due(&sending.owed) else {
            sending.arrived();
            return Ok(());
        };
        let call = Transaction {
            checks: [owed].into_iter().collect(),
            deadline,
            ..Transaction::default()
        };
        match self.inner.check(&call).await {
            Ok(_) => sending.arrived(),
            Err(StoreError::Refused {
                kind: Refusal::WrongType,
                ..
            }) => {
                // Somebody else's key: it never decides anything for us.
                sending.arrived();
            }
            Err(error) => return Err((sending, error)),
        }
        Ok(())
    }

    /// Sees to it that the store knows what is owed on these checks' counters: an answer that was given without knowing
    /// of it may let too many pass, and what is given back before it was taken is lost.
    ///
    /// # Errors
    /// When that is not so by the deadline.
    async fn tell_first<'c>(
        &self,
        checks: impl Iterator<Item = &'c Check> + Clone + Send,
        deadline: Deadline,
    ) -> Result<(), StoreError> {
        loop {
            let (mut owed, mut on_the_way) = (Vec::new(), Vec::new());
            for taken in checks.clone().filter_map(|check| self.standby.owed.take(&check.key)) {
                match taken {
                    Taken::Debt(debt) => owed.push(Sending::new(&self.standby, debt)),
                    Taken::OnTheWay(ends) => on_the_way.push(ends),
                }
            }
            if owed.is_empty() && on_the_way.is_empty() {
                return Ok(());
            }
            if let Some((_, error)) = self.tell_all(owed, Some(deadline)).await.pop() {
                return Err(error.not_made());
            }
            for mut ends in on_the_way {
                let left = deadline.saturating_duration_since(Deadline::now());
                // It ends with an error, as it says nothing else.
                if timeout(left, ends.changed()).await.is_err() {
                    return Err(StoreError::Timeout(self.timeout).not_made());
                }
            }
        }
    }

    /// When a call must have been answered that has to tell something first.
    fn deadline(&self, callers: impl Iterator<Item = Deadline>) -> Deadline {
        callers.fold(Deadline::now() + self.timeout, Deadline::min)
    }
}

#[async_trait]
impl<S: Store> Store for Follow<S> {
    async fn check(&self, transaction: &Transaction) -> Result<Outcomes, StoreError> {
        let outcomes = if self.standby.owed.is_empty() {
            self.inner.check(transaction).await?
        } else {
            let deadline = self.deadline(transaction.deadline.into_iter());
            self.tell_first(transaction.checks.iter(), deadline).await?;
            self.inner.check(&by(deadline, transaction)).await?
        };
        self.standby.follow(transaction, &outcomes);
        Ok(outcomes)
    }

    async fn check_many(&self, transactions: &[Transaction]) -> Result<Vec<Outcomes>, StoreError> {
        let answers = if self.standby.owed.is_empty() {
            self.inner.check_many(transactions).await?
        } else {
            let deadline = self.deadline(transactions.iter().filter_map(|transaction| transaction.deadline));
            let checks = transactions.iter().flat_map(|transaction| &transaction.checks);
            self.tell_first(checks, deadline).await?;
            let hurried: Vec<_> = transactions
                .iter()
                .map(|transaction| by(deadline, transaction))
                .collect();
            self.inner.check_many(&hurried).await?
        };
        for (transaction, outcomes) in transactions.iter().zip(&answers) {
            self.standby.follow(transaction, outcomes);
        }
        Ok(answers)
    }

    async fn settle(&self) -> Result<(), StoreError> {
        if self.standby.owed.is_empty() {
            return Ok(());
        }
        self.tell(FIRST).await?;
        sleep(OTHERS).await;
        self.tell(LAST).await
    }
}

/// The same with this deadline.
fn by(deadline: Deadline, transaction: &Transaction) -> Transaction {
    Transaction {
        deadline: Some(deadline),
        ..transaction.clone()
    }
}

/// A debt on its way: noted again unless it arrives, also when the call is dropped.
struct Sending<'s> {
    standby: &'s Standby,
    owed: Check,
    arrived: bool,
    /// What is known of it if it does not arrive.
    fate: Fate,
}

impl<'s> Sending<'s> {
    const fn new(standby: &'s Standby, owed: Check) -> Self {
        Self {
            standby,
            owed,
            arrived: false,
            fate: Fate::Unknown,
        }
    }

    fn arrived(mut self) {
        self.arrived = true;
    }

    /// Notes it again; on which counter that is.
    fn failed(mut self, error: &StoreError) -> CounterKey {
        self.fate = Fate::of(error);
        self.owed.key.clone()
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        if !self.arrived {
            self.standby.put_back(&self.owed, self.fate);
        }
        self.standby.owed.end(&self.owed.key);
    }
}

/// Tells what is owed on counters that nobody asks for any more, until the layer is gone. The composition root spawns
/// it. `layer` stands under a circuit breaker that is open when `is_away` says so: then it is not asked.
pub async fn settle_forever<S: Store>(layer: Weak<Follow<S>>, is_away: impl Fn() -> bool + Send) {
    let mut turns = Turns::new(layer, EVERY);
    while let Some(layer) = turns.next().await {
        if is_away() || layer.standby.owed.is_empty() {
            continue;
        }
        if let Err(error) = layer.tell(TURN).await {
            tracing::debug!(%error, "what was admitted meanwhile could not be told yet");
        }
    }
}
