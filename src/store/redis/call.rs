//! One call: transactions in, outcomes out, in time.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fred::bytes_utils::Str;
use fred::error::Error;
use fred::interfaces::LuaInterface;
use fred::prelude::{Client, ClientLike, ErrorKind};
use fred::types::config::Options;
use fred::types::{CustomCommand, Key, Value};
use fred::util::redis_keyslot;

use super::client::store_error;
use super::link::Link;
use super::script::{self, Call, ScriptId};
use crate::model::{CounterKey, Transaction};
use crate::store::{Outcomes, StoreError};

/// Decides transactions whose keys may stand in one call, by virtual time `now_us` (0 = Redis' own).
pub(super) async fn decide(
    link: &Link,
    transactions: &[&Transaction],
    timeout: Duration,
    now_us: u64,
) -> Result<Vec<Outcomes>, StoreError> {
    let client = link.client()?;
    let deadline = transactions.iter().filter_map(|transaction| transaction.deadline).min();
    let budget = Budget::new(timeout, deadline)?;
    let call = script::encode(transactions, now_us);
    let mut reply = if budget.is_whole {
        let argument = vec![Value::Bytes(Bytes::from(call.argument))];
        client.evalsha(hash(call.script), keys(&call.keys), argument).await
    } else {
        custom(&client, &budget, "EVALSHA", hash(call.script), call).await
    };
    if reply
        .as_ref()
        .is_err_and(|error| error.details().starts_with("NOSCRIPT"))
    {
        // The server has lost the script (a restart, SCRIPT FLUSH) or never had it: send it along, which also makes
        // it known. Nothing was counted yet.
        let call = script::encode(transactions, now_us);
        let text = Str::from_static(call.script.source());
        reply = custom(&client, &budget, "EVAL", text, call).await;
    }
    match &reply {
        Err(error) if *error.kind() == ErrorKind::Timeout => {
            if budget.is_whole {
                link.timed_out(timeout);
            }
        }
        _ => link.answered(),
    }
    match reply {
        Ok(reply) => script::decode(transactions, &reply),
        Err(error) => Err(store_error(&error, budget.total)),
    }
}

fn keys(keys: &[&CounterKey]) -> Vec<Key> {
    keys.iter().map(|key| Key::from(key.as_str())).collect()
}

/// The same call with what is left of the time instead of the store's own timeout. (fred's script interface does not
/// take options.)
async fn custom(
    client: &Client,
    budget: &Budget,
    command: &'static str,
    script: Str,
    call: Call<'_>,
) -> Result<Bytes, Error> {
    let slot = call.keys.first().map(|key| redis_keyslot(key.as_str().as_bytes()));
    let command = CustomCommand::new_static(command, slot, false);
    let mut arguments = vec![Value::String(script), Value::from(call.keys.len() as i64)];
    arguments.extend(keys(&call.keys).into_iter().map(Value::from));
    arguments.push(Value::Bytes(Bytes::from(call.argument)));
    let options = Options {
        timeout: Some(budget.left()),
        ..Options::default()
    };
    client.with_options(&options).custom(command, arguments).await
}

/// The script's SHA-1, as Redis names it; computed once.
fn hash(script: ScriptId) -> Str {
    static HASHES: [OnceLock<Str>; ScriptId::COUNT] = [const { OnceLock::new() }; ScriptId::COUNT];
    let compute = || Str::from(fred::util::sha1_hash(script.source()));
    HASHES
        .get(script.index())
        .map_or_else(compute, |hash| hash.get_or_init(compute).clone())
}

/// The time that a call has.
struct Budget {
    start: Instant,
    total: Duration,
    /// Whether it is the store's own timeout: only then does running out of it speak against the server.
    is_whole: bool,
}

impl Budget {
    fn new(timeout: Duration, deadline: Option<Instant>) -> Result<Self, StoreError> {
        let start = Instant::now();
        let left = deadline.map_or(timeout, |deadline| deadline.saturating_duration_since(start));
        if left.is_zero() {
            return Err(StoreError::Timeout(left));
        }
        Ok(Self {
            start,
            total: left.min(timeout),
            is_whole: left >= timeout,
        })
    }

    fn left(&self) -> Duration {
        // fred reads zero as no limit.
        self.total
            .saturating_sub(self.start.elapsed())
            .max(Duration::from_micros(1))
    }
}
