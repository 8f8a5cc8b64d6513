//! Commands for the log of resets, and for the search for counters by name.

use std::time::Duration;

use fred::prelude::{Client, ClientLike};
use fred::types::config::Options;
use fred::types::{ClusterHash, CustomCommand, Value};

use super::client::store_error;
use crate::model::CounterKey;
use crate::store::StoreError;
use crate::store::reset::{Cursor, NamePage};

const SCRIPT: &str = include_str!("resets.lua");
/// Entries of the log that are kept: as many as one reset can have.
const KEPT: i64 = 10_000;
/// How long the log is kept after the last entry, in milliseconds: much longer than a denial is cached.
const KEPT_MS: i64 = 3_600_000;
/// Timeout of one of these commands.
const PATIENCE: Duration = Duration::from_millis(500);
/// Keys that Redis examines for a page of names: some 0.1 ms, during which it serves no other client.
const LOOKED_AT: i64 = 250;

/// Sends a command.
pub(super) async fn command(client: &Client, name: &'static str, arguments: Vec<Value>) -> Result<Value, StoreError> {
    let options = Options {
        timeout: Some(PATIENCE),
        ..Options::default()
    };
    let command = CustomCommand::new_static(name, ClusterHash::FirstKey, false);
    let reply: Result<Value, _> = client.with_options(&options).custom(command, arguments).await;
    reply.map_err(|error| store_error(&error, PATIENCE))
}

/// Adds counters to the log.
pub(super) async fn announce(client: &Client, log: &CounterKey, counters: &[CounterKey]) -> Result<(), StoreError> {
    let mut arguments: Vec<Value> = vec![
        SCRIPT.into(),
        1.into(),
        log.as_str().into(),
        KEPT.into(),
        KEPT_MS.into(),
    ];
    arguments.extend(counters.iter().map(|counter| Value::from(counter.as_str())));
    command(client, "EVAL", arguments).await.map(drop)
}

/// Up to `most` counters that were added to the log later than `since`, in order.
pub(super) async fn resets(
    client: &Client,
    log: &CounterKey,
    since: u64,
    most: usize,
) -> Result<Vec<(CounterKey, u64)>, StoreError> {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let mut arguments: Vec<Value> = vec![log.as_str().into(), format!("({since}").into()];
    for word in ["+inf", "WITHSCORES", "LIMIT"] {
        arguments.push(word.into());
    }
    arguments.extend([Value::from(0), most.into()]);
    let reply = command(client, "ZRANGEBYSCORE", arguments).await?;
    let reply = reply.into_array();
    let entries = reply.as_chunks::<2>().0.iter();
    let read = entries.map(|[counter, at]| {
        let at = at.as_string()?.parse().ok()?;
        Some((CounterKey::from_raw(counter.as_str()?.as_ref()), at))
    });
    let all: Option<Vec<_>> = read.collect();
    all.ok_or_else(|| StoreError::Protocol("a malformed answer to ZRANGEBYSCORE".to_owned()))
}

/// A page of a node's keys that begin with `prefix`.
pub(super) async fn scan(client: &Client, prefix: &str, from: Cursor) -> Result<NamePage, StoreError> {
    let mut arguments: Vec<Value> = vec![from.at.to_string().into(), "MATCH".into()];
    arguments.push(format!("{}*", literal(prefix)).into());
    arguments.extend([Value::from("COUNT"), LOOKED_AT.into()]);
    let reply = command(client, "SCAN", arguments).await?;
    let wrong = || StoreError::Protocol("a malformed answer to SCAN".to_owned());
    let [at, keys] = <[Value; 2]>::try_from(reply.into_array()).map_err(|_| wrong())?;
    let at: u64 = at.as_string().and_then(|at| at.parse().ok()).ok_or_else(wrong)?;
    let keys = keys.into_array();
    let keys = keys
        .iter()
        .filter_map(Value::as_str)
        .map(|key| CounterKey::from_raw(&key));
    Ok(NamePage {
        keys: keys.collect(),
        next: (at > 0).then_some(Cursor { at, ..from }),
    })
}

/// Escapes the special characters of Redis' patterns.
fn literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '\\' | '^' | '-') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}
