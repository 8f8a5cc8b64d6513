//! One call: transactions in, answers out, in time.

use std::pin::pin;

use tokio::time::timeout_at;

use super::budget::Budget;
use super::client::store_error;
use super::evaluate::evaluate;
use super::link::Link;
use super::script::{self, CallTime};
use crate::algorithms::op::Op;
use crate::model::Transaction;
use crate::store::StoreError;
use crate::store::remote::transport::Answers;

pub(super) use super::evaluate::Mode;

/// Why a call has no answers.
pub(super) enum Failure {
    /// Another node of the cluster has the key: its words.
    Redirected(String),
    /// There was no connection to send it on.
    NotSent(StoreError),
    /// It was handed to a connection, and this became of it.
    Sent(StoreError),
}

/// Decides transactions whose keys may stand in one call.
pub(super) async fn decide(
    link: &Link,
    transactions: &[Transaction<Op>],
    budget: &Budget,
    time: CallTime,
    mode: Mode,
) -> Result<Vec<Answers>, Failure> {
    let client = link.client().map_err(Failure::NotSent)?;
    let reply = watch(budget, link, evaluate(&client, transactions, budget, time, mode));
    match reply.await {
        Ok(reply) => {
            link.answered(&client);
            script::decode(transactions, &reply).map_err(Failure::Sent)
        }
        Err(error) => {
            if error.is_moved() || error.is_ask() {
                link.answered(&client);
                return Err(Failure::Redirected(error.details().to_owned()));
            }
            let error = store_error(&error, budget.timeout).in_flight();
            if matches!(error, StoreError::Refused { .. }) {
                link.answered(&client);
            }
            Err(Failure::Sent(error))
        }
    }
}

/// Waits for a reply, and tells the link if that takes too long.
async fn watch<T>(budget: &Budget, link: &Link, reply: impl Future<Output = T>) -> T {
    let mut reply = pin!(reply);
    match timeout_at((budget.start + budget.timeout).into(), &mut reply).await {
        Ok(reply) => reply,
        Err(_) => {
            link.timed_out(budget.timeout);
            reply.await
        }
    }
}
