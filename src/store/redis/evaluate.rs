//! The commands that run a script.

use std::iter;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use fred::bytes_utils::Str;
use fred::error::Error;
use fred::interfaces::LuaInterface;
use fred::prelude::{Client, ClientLike, ErrorKind};
use fred::types::{ClusterHash, CustomCommand, Key, Value};
use futures::future::join_all;
use tokio::time::timeout;

use super::budget::Budget;
use super::script::{self, Call, CallTime, ScriptId};
use crate::algorithms::op::Op;
use crate::model::{AlgorithmKind, Transaction};

/// How a call is made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// To the one server, or to the node that serves the keys' slot.
    Plain,
    /// To a node that serves all of the keys' slots. Redis Cluster refuses keys of several slots where they are declared; a
    /// script may use any that its node serves (`EVAL` without a shebang, since 2.6 and up to now).
    Undeclared,
    /// To a node that is about to get the key's slot.
    Asking,
}

/// Runs the script that decides these transactions.
pub(super) async fn evaluate(
    client: &Client,
    transactions: &[Transaction<Op>],
    budget: &Budget,
    time: CallTime,
    mode: Mode,
) -> Result<Bytes, Error> {
    let call = script::encode(transactions, time);
    let reply: Result<Bytes, Error> = match mode {
        Mode::Plain | Mode::Undeclared if budget.touch() => {
            let (script, (keys, arguments)) = (hash(call.script), parameters(call, mode));
            client.evalsha(script, keys, arguments).await
        }
        Mode::Plain | Mode::Undeclared => {
            let (command, arguments) = evaluation("EVALSHA", hash(call.script), call, mode);
            let client = client.with_options(&budget.options());
            client.custom(command, arguments).await
        }
        Mode::Asking => asking(client, budget, call).await,
    };
    match reply {
        // The server has lost the script (a restart, SCRIPT FLUSH) or never had it: send it along, which also makes
        // it known. Nothing was counted yet.
        Err(error) if error.details().starts_with("NOSCRIPT") => {
            let call = script::encode(transactions, time);
            let (command, arguments) = evaluation("EVAL", text(call.script), call, mode);
            let client = client.with_options(&budget.options());
            client.custom(command, arguments).await
        }
        reply => reply,
    }
}

/// Runs each algorithm's script once without anything to decide, so that a server and a connection that are new have the
/// scripts, and have been used, before a request's 15 ms count. What fails here fails again where it matters.
pub(super) async fn warm(client: &Client, patience: Duration) {
    let nothing = script::encode::<Op>(&[], CallTime::of_virtual(0));
    let held = AlgorithmKind::ALL.into_iter().filter(|kind| kind.can_hold());
    let scripts = AlgorithmKind::ALL
        .into_iter()
        .map(ScriptId::of)
        .chain(held.map(ScriptId::held));
    let calls = scripts.map(|script| {
        let call = Call {
            script,
            keys: nothing.keys.clone(),
            argument: nothing.argument.clone(),
        };
        let (command, arguments) = evaluation("EVAL", text(call.script), call, Mode::Plain);
        client.custom::<Value, _>(command, arguments)
    });
    let _ = timeout(patience, join_all(calls)).await;
}

/// fred's script interface takes no options, hence the command by name.
fn evaluation(command: &'static str, script: Str, call: Call<'_>, mode: Mode) -> (CustomCommand, Vec<Value>) {
    let (keys, parameters) = parameters(call, mode);
    let mut arguments = vec![Value::String(script), Value::from(keys.len() as i64)];
    arguments.extend(keys.into_iter().map(Value::from));
    arguments.extend(parameters);
    let command = CustomCommand::new_static(command, ClusterHash::FirstKey, false);
    (command, arguments)
}

/// `ASKING` and the script in one go, with its text, since the node may never have seen it.
async fn asking(client: &Client, budget: &Budget, call: Call<'_>) -> Result<Bytes, Error> {
    let pipeline = client.pipeline();
    let asking = CustomCommand::new_static("ASKING", ClusterHash::FirstKey, false);
    let _: Value = pipeline.custom(asking, Vec::<Value>::new()).await?;
    let (command, arguments) = evaluation("EVAL", text(call.script), call, Mode::Asking);
    let _: Value = pipeline.custom(command, arguments).await?;
    match timeout(budget.left(), pipeline.last()).await {
        Ok(reply) => reply,
        Err(_) => Err(Error::new(ErrorKind::Timeout, "no answer to ASKING")),
    }
}

/// The keys to declare, and the arguments.
fn parameters(call: Call<'_>, mode: Mode) -> (Vec<Key>, Vec<Value>) {
    let argument = Value::Bytes(Bytes::from(call.argument));
    if mode == Mode::Undeclared {
        let keys = call.keys.iter().map(|key| Value::from(&**key));
        return (Vec::new(), iter::once(argument).chain(keys).collect());
    }
    let keys = call.keys.iter().map(|key| Key::from(&**key)).collect();
    (keys, vec![argument])
}

/// The script's SHA-1, as Redis names it; computed once.
fn hash(script: ScriptId) -> Str {
    static HASHES: [OnceLock<Str>; ScriptId::COUNT] = [const { OnceLock::new() }; ScriptId::COUNT];
    let compute = || Str::from(fred::util::sha1_hash(script.source()));
    HASHES
        .get(script.index())
        .map_or_else(compute, |hash| hash.get_or_init(compute).clone())
}

fn text(script: ScriptId) -> Str {
    Str::from_static(script.source())
}
